# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures to tell modalities apart: slices of volumes, sources, foreign families."""

import nibabel
import numpy as np
import pytest
import torch

from monai_effsam.data.routing import foreign, foreign_kept, foreign_learned
from monai_effsam.data.routing.batches import RoutingBatches
from monai_effsam.data.routing.pictures import (
    LONGEST,
    ModalityPicture,
    case_pictures,
    kept_size,
    middle_slices,
    of_sources,
    source_of,
)
from monai_effsam.data.sets import Case
from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.specs import ImageSpec

SPEC = ImageSpec(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def case(path, modality="ct", set_name="scans", label_class=""):
    return Case(path, path, modality, {}, path.stem, "train", set_name, label_class)


@pytest.fixture
def volume(tmp_path):
    """A NIfTI of 40 x 44 x 20 voxels whose grey tells the slice, with texture."""
    values = np.random.default_rng(0).integers(-900, 400, (40, 44, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def flat(modality, grey, source="a", count=1):
    return [ModalityPicture(np.full((40, 40, 3), grey, np.uint8), modality, source, "") for _ in range(count)]


def test_the_middle_of_a_stack_is_looked_at():
    assert middle_slices(1, 5) == [0]
    assert middle_slices(2, 5) == [0, 1]
    chosen = middle_slices(100, 5)
    assert len(chosen) == 5
    assert min(chosen) >= 20
    assert max(chosen) <= 80


def test_a_volume_gives_slices_and_for_training_planes_and_windows(volume):
    plain = list(case_pictures(case(volume), most=4))
    assert len(plain) == 4
    assert {p.image.shape for p in plain} == {(44, 40, 3)}
    varied = list(case_pictures(case(volume), most=4, varied=True))
    assert len(varied) == 4 * 3 * 4  # slices, planes, windows
    assert len(list(case_pictures(case(volume, "mr"), most=4, varied=True))) == 4 * 3
    assert {p.modality for p in varied} == {"ct"}


def test_pictures_are_kept_small_and_never_enlarged():
    assert kept_size(np.zeros((2 * LONGEST, LONGEST, 3), np.uint8)).shape == (LONGEST, LONGEST // 2, 3)
    assert kept_size(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30, 3)


def test_sources_are_sets_or_classes_of_them(tmp_path):
    cases = [case(tmp_path / "a", set_name="x", label_class=c) for c in ("manual", "made")] + [
        case(tmp_path / "b")
    ]
    assert [source_of(c) for c in cases] == ["x/manual", "x/made", "scans"]
    assert of_sources(cases, ["x/made"]) == ([cases[1]], [cases[0], cases[2]])
    assert of_sources(cases, ["x"])[0] == cases[:2]


def test_the_families_have_no_kind_and_no_photograph_in_common():
    assert not foreign_learned.LEARNED.keys() & foreign_kept.KEPT.keys()
    files = [
        {name for names in packages.values() for name in names} for packages in foreign._PHOTOGRAPHS.values()
    ]
    assert not files[0] & files[1]
    assert not (files[0] | files[1]) & {"retina.jpg", "microaneurysms.png", "phantom.png"}


@pytest.mark.parametrize("family", ["learned", "kept"])
def test_drawings_are_pictures_and_drawn_again(family):
    first, again = (foreign.drawn_pictures(family, 2, seed=5) for _ in range(2))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert {p.modality for p in first} == {""}
    assert {(p.image.ndim, p.image.shape[2], p.image.dtype.name) for p in first} == {(3, 3, "uint8")}
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(first[::2], first[1::2], strict=True))


def test_an_unknown_family_is_refused():
    with pytest.raises(UnknownNameError, match="expected one of kept, learned"):
        foreign.photographs("held")


def test_photographs_are_read_where_their_packages_are_installed():
    pytest.importorskip("skimage")
    learned, kept = foreign.photographs("learned"), foreign.photographs("kept")
    assert len(learned) >= 8
    assert len(kept) >= 8
    assert not {p.group for p in learned} & {p.group for p in kept}
    assert {p.modality for p in foreign.fundus_photographs()} == {"fundus"}


def test_missing_packages_give_no_photographs(monkeypatch):
    monkeypatch.setattr(foreign, "find_spec", lambda name: None)
    assert foreign.photographs("learned") == []


def batches(**options):
    pictures = flat("ct", 40, count=9) + flat("mr", 200, "b", 1) + flat("mr", 240, "c", 1)
    return RoutingBatches(pictures, [], ("ct", "mr"), SPEC, **{"batch": 16, "epoch_length": 2, **options})


def test_batches_are_a_function_of_seed_rank_and_step():
    first = batches(seed=1).batch(3)
    assert torch.equal(first.image, batches(seed=1).batch(3).image)
    assert not torch.equal(first.image, batches(seed=1, rank=1).batch(3).image)
    assert not torch.equal(first.image, batches(seed=2).batch(3).image)
    assert first.image.shape == (16, 3, 32, 32)


def test_modalities_come_in_equal_shares_and_foreign_ones_in_theirs():
    drawn = batches(batch=600, foreign=0.2, warm_steps=1, warm_size=16).batch(0)
    shares = torch.bincount(drawn.target, minlength=3) / 600
    assert torch.allclose(shares, torch.tensor([0.4, 0.4, 0.2]), atol=0.08)
    assert drawn.image.shape[-1] == 16


def test_the_last_views_are_gentle():
    strong, gentle = (batches(gentle_from=n, foreign=0.0, batch=200).batch(5).image for n in (6, 5))
    assert torch.equal(strong, batches(foreign=0.0, batch=200).batch(5).image)
    assert not torch.equal(strong, gentle)


def test_mixed_views_have_mixed_targets():
    plain, mixed = (batches(mix=mix, smoothing=0.3, batch=200).batch(0) for mix in (0.0, 0.5))
    hard = torch.nn.functional.one_hot(plain.target, 3).float() * 0.7 + 0.1
    assert torch.allclose(mixed.target.sum(1), torch.ones(200))
    alone = (mixed.image == plain.image).flatten(1).all(1)
    assert 60 < alone.sum() < 140
    assert torch.allclose(mixed.target[alone], hard[alone])
    spread = plain.image.flatten(1).std(1)
    one = next(n for n in (~alone).nonzero().flatten().tolist() if min(spread[n], spread[n - 1]) > 0.1)
    pair = torch.stack([plain.image[one], plain.image[one - 1]]).flatten(1).T.double()
    share = torch.linalg.lstsq(pair, mixed.image[one].flatten().double()).solution
    assert torch.allclose(share.sum(), torch.ones(()).double(), atol=1e-3)
    assert torch.allclose(
        mixed.target[one], share.float() @ torch.stack([hard[one], hard[one - 1]]), atol=1e-3
    )
    assert share[0] >= 0.5 - 1e-3


def test_an_epoch_continues_where_the_last_one_ended():
    loader = batches()
    loader.epoch = 1
    assert [torch.equal(a.image, batches().batch(n).image) for n, a in enumerate(loader, 2)] == [True, True]
    assert len(loader) == 2


def test_a_modality_without_a_picture_is_refused():
    with pytest.raises(DataError, match="no picture of mr"):
        RoutingBatches(flat("ct", 3), [], ("ct", "mr"), SPEC)
