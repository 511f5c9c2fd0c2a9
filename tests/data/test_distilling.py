# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches to distil on: what they hold, where it lies, and that an epoch is a pure function."""

import numpy as np
import pytest
import torch

from monai_effsam.data.alignment import align_embedding
from monai_effsam.data.distilling import EMBEDDING, DistillationBatches
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec

STUDENT = {"": ImageSpec(32, "longest", stride=8)}


def picture(number, size=(20, 40), modality="ultrasound", known=(True,)):
    label = np.zeros(size, np.uint8)
    label[5:15, 10:30] = 1
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    return LabelledSlice(pixels, label, modality, "set", f"g{number}", known)


class Source:
    """A teacher that answers with the mean colour of each cell of its own, stretched, frame."""

    def __init__(self):
        self.specs = {"": ImageSpec(64, stride=16)}

    def arrays(self, views):
        images = [apply_spec(view.image, self.specs[""])[0] for view in views]
        return [{EMBEDDING: i.reshape(3, 4, 16, 4, 16).mean((2, 4))} for i in images]


@pytest.fixture
def pictures():
    return [picture(n, (20 + n, 40)) for n in range(7)]


def batches(pictures, **options):
    return DistillationBatches(pictures, STUDENT, Source(), **{"batch": 3, **options})


def test_a_batch_holds_both_sides_of_the_same_views(pictures):
    found = next(iter(batches(pictures, shuffle=False)))
    assert found.image.shape == (3, 3, 32, 32)
    assert found.target.shape == (3, 3, 4, 4)
    for row in range(3):
        image, place = apply_spec(pictures[row].image, STUDENT[""])
        np.testing.assert_array_equal(found.image[row], image)
        theirs = Source().specs[""].place(pictures[row].image.shape[:2])
        embedding = torch.from_numpy(Source().arrays([pictures[row]])[0][EMBEDDING])
        assert torch.equal(found.target[row], align_embedding(embedding, theirs, place, (4, 4)))
    assert found.valid[0, 0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2  # 20 x 40 in a square


def test_an_epoch_shows_every_picture_once_and_can_be_had_again(pictures):
    source = batches(pictures, views=3, seed=4)
    chosen = source.chosen(2)
    assert sorted(row for row, _ in chosen) == list(range(7))
    assert {number for epoch in range(5) for _, number in source.chosen(epoch)} == {0, 1, 2}
    assert source.chosen(2) == batches(pictures, views=3, seed=4).chosen(2) != source.chosen(3)
    source.epoch = 2
    first, again = list(source), list(source)
    assert len(first) == len(source) == 2  # the seventh is left out
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_in_order_nothing_is_left_out(pictures):
    sizes = [len(batch.image) for batch in batches(pictures, shuffle=False, rows=[6, 1, 2, 3])]
    assert sizes == [3, 1]


def test_labels_lie_with_their_picture_one_channel_a_target():
    mixed = [picture(0), picture(1, known=(False, True, True), modality="ct"), picture(2, known=())]
    found = batches(mixed, shuffle=False, labels=True, modalities=("ct", "ultrasound")).collate(
        [batches(mixed).view(row, 0) for row in range(3)]
    )
    assert found.modality.tolist() == [1, 0, 1]
    assert found.known.tolist() == [[True, False, False], [False, True, True], [False] * 3]
    expected = torch.zeros(32, 32)
    expected[4:12, 8:24] = 1  # 20 x 40 at four fifths
    assert torch.equal(found.label[0, 0], expected)
    assert found.label[0, 1:].sum() == found.label[2].sum() == 0


def test_what_is_not_wanted_is_not_made(pictures):
    found = next(iter(batches(pictures, images=False)))
    assert found.image.shape == (3, 3, 0, 0)
    assert found.label.shape[1] == 0
    alone = next(iter(DistillationBatches(pictures, STUDENT, None, batch=2)))
    assert alone.target.shape == (2, 0, 4, 4)
    assert alone.to("cpu").valid.shape == (2, 1, 4, 4)


def test_no_pictures_are_refused():
    with pytest.raises(DataError, match="no pictures"):
        batches([])
