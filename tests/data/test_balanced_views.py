# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches of views: one size a batch, modalities mixed within it, each view with what the source makes of it."""

import numpy as np
import pytest
import torch

from monai_effsam.data.balanced_views import BalancedViews
from monai_effsam.data.distilling import EMBEDDING
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec

MODALITIES = ("endoscopy", "ultrasound", "ct")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SPECS = {m: ImageSpec(size, **PLAIN) for m, size in zip(MODALITIES, (32, 64, 32), strict=True)}


class Greys:
    """A source whose embedding is the mean grey of a view, on a 4 x 4 grid."""

    specs = dict.fromkeys(MODALITIES, ImageSpec(64))

    def arrays(self, views):
        return [{EMBEDDING: np.full((3, 4, 4), view.image.mean(), np.float32)} for view in views]


def slices(count, modality):
    """Grey pictures, of another grey each."""
    place = MODALITIES.index(modality)
    return [
        LabelledSlice(
            np.full((20, 24, 3), 80 * place + 10 + 5 * i, np.uint8),
            np.ones((20, 24), np.uint8),
            modality,
            f"set_{modality}",
            f"c{i}",
            (True,),
        )
        for i in range(count)
    ]


def views(own=None, **options):
    own = own or [s for m in MODALITIES for s in slices(4, m)]
    settings = {
        "modalities": MODALITIES,
        "batch_area": 6 * 32 * 32,
        "epoch_length": 12,
        "views": 1,
        **options,
    }
    return BalancedViews(own, SPECS, Greys(), **settings)


def test_a_batch_has_one_size_and_mixes_the_modalities_that_have_it():
    found = list(views())
    kinds = {(b.image.shape[-1], tuple(sorted(set(b.modality.tolist())))) for b in found}
    assert {size for size, _ in kinds} == {32, 64}
    assert all(set(kind) == {1} for size, kind in kinds if size == 64)
    assert (32, (0, 2)) in kinds
    assert {len(b.image) for b in found if b.image.shape[-1] == 32} == {6}
    assert {len(b.image) for b in found if b.image.shape[-1] == 64} == {2}


def test_each_item_has_its_own_modality_and_embedding():
    for batch in views():
        target = batch.target.mean((1, 2, 3))
        torch.testing.assert_close(target, batch.image.mean((1, 2, 3)) * 255, rtol=1e-3, atol=0.1)
        assert torch.equal(target.div(80, rounding_mode="floor").long(), batch.modality)
        assert batch.target.shape[-1] == batch.image.shape[-1] // 16


def test_batches_are_a_function_of_seed_rank_and_step():
    first, again, other = views(), views(), views(rank=1)
    assert [first.drawn(s) for s in range(12)] == [again.drawn(s) for s in range(12)]
    assert first.drawn(5) == again.drawn(5)
    assert first.drawn(0) != other.drawn(0)
    again.epoch = 1
    second = again.collate([again.view(*pair) for pair in again.drawn(12)])
    assert torch.equal(next(iter(again)).image, second.image)


def test_ranks_share_the_size_of_a_step():
    a, b = views(), views(rank=1)
    assert [len(a.drawn(s)) for s in range(12)] == [len(b.drawn(s)) for s in range(12)]


def test_sets_without_a_weight_are_not_drawn():
    found = views(weights={"set_ct": 0.5})
    assert {row for step in range(12) for row, _ in found.drawn(step)} == {8, 9, 10, 11}
    with pytest.raises(DataError, match="expected at least one"):
        views(weights={"set_mr": 1.0})


def test_all_views_are_drawn_and_no_others():
    assert {number for step in range(12) for _, number in views(views=3).drawn(step)} == {0, 1, 2}
