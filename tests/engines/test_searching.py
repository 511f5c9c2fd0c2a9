# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What searches learn from: parts without common patients, shares of processes, scores that repeat themselves."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines import searching
from monai_effsam.engines.optimisation import Schedule, build_optimizer
from monai_effsam.engines.searching import SearchMaterial, SearchSizes, split_pictures
from monai_effsam.engines.teacher import load_teacher
from monai_effsam.errors import DataError, WeightsError
from monai_effsam.nas.space import SearchSpace, StageChoices
from monai_effsam.networks.encoders import SearchedEncoder

TOY = SearchSpace(
    "toy",
    (StageChoices(8, (16,), 1, ("dwsep_k3",)), StageChoices(16, (16,), 1, ("dwsep_k3",))),
    stems=(8,),
    strides=(8, 16),
    sizes=(64,),
    neck_widths=(16,),
    decoder_depths=(1,),
    mlp_dims=(64,),
)


class Drawn(list):
    """Noisy pictures of some patients, as `Pictures` has them."""

    def __init__(self, groups):
        random = np.random.default_rng(0)
        super().__init__(
            LabelledSlice(
                np.kron(random.integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8)),
                np.zeros((32, 40), np.uint8), "", "", "", (),
            )
            for _ in groups
        )  # fmt: skip
        self.groups = list(groups)


@pytest.mark.parametrize("count", [3, 4, 7, 40])
@pytest.mark.parametrize("seed", range(5))
def test_no_patient_is_in_two_parts_and_no_part_is_empty(count, seed):
    pictures = SimpleNamespace(groups=[f"patient {i % count}" for i in range(2 * count)])
    rows = split_pictures(pictures, seed)
    assert sorted(i for part in rows for i in part) == list(range(2 * count))
    patients = [{pictures.groups[i] for i in part} for part in rows]
    assert all(patients)
    assert sum(map(len, patients)) == count
    if count == 40:
        assert len(rows.weights) > len(rows.judged) > 0


def test_two_patients_are_too_few():
    with pytest.raises(DataError, match="are of 2 patients or sequences, expected at least 3"):
        split_pictures(SimpleNamespace(groups=["a", "a", "b"]))


@pytest.fixture
def material():
    teacher = load_teacher("random")
    return SearchMaterial(TOY, teacher, Drawn("aabbccddee"), SearchSizes(2, 1, 2))


def test_a_score_repeats_itself_and_compares_grids_on_the_finest(material):
    one, other = (TOY.decode([i if c.name == "stride" else 0 for c in TOY.choices]) for i in range(2))
    assert {one.stride, other.stride} == {8, 16}
    assert material.judge(one) == material.judge(one) < 0
    material.judge(other)
    assert {tuple(batch.target.shape[2:]) for batch in material._judging[64]} == {(8, 8)}


def test_processes_share_the_views_of_a_batch(material, monkeypatch):
    whole = list(material.batches(searching.SharedViews, material.rows.weights, 64, 8, seed=0))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(searching.idist, "get_world_size", lambda: 2)
        monkeypatch.setattr(searching.idist, "get_rank", lambda rank=rank: rank)
        parts.append(list(material.batches(searching.SharedViews, material.rows.weights, 64, 8, seed=0)))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.image[0::2], first.image)
        assert torch.equal(batch.image[1::2], second.image)
    with pytest.raises(DataError, match="1 pictures are to be shared by 2 processes"):
        material.batches(searching.SharedViews, [0], 64, 8, seed=0)


def test_a_teacher_of_another_width_is_refused():

    with pytest.raises(
        WeightsError, match="embedding has 256 channels, expected those of search space toy, 32"
    ):
        SearchMaterial(replace(TOY, decoder_widths=(32,)), load_teacher("random"), Drawn("abc"))


def test_inherited_parts_of_an_encoder_learn_at_the_rate_of_a_trunk():
    one = TOY.smallest()
    encoder = SearchedEncoder(architecture=one)
    schedule = Schedule(10, rate=1.0, trunk_rate=0.1)
    assert {g["base_lr"] for g in build_optimizer(encoder, schedule).param_groups} == {1.0}
    encoder.inherited = {"network": "mobilenetv2_100"}
    rates = {
        id(p): g["base_lr"] for g in build_optimizer(encoder, schedule).param_groups for p in g["params"]
    }
    for name, parameter in encoder.named_parameters():
        assert rates[id(parameter)] == (1.0 if name.startswith("neck.") else 0.1)
