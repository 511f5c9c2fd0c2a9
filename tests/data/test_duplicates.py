# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Near-duplicates across splits: copies are found, other pictures are not."""

import itertools
import logging

import cv2
import numpy as np
import pytest

from monai_effsam.data.duplicates import find_duplicates, perceptual_hashes, warn_of_duplicates
from monai_effsam.data.sets import Case, read_sets
from monai_effsam.errors import ShapeError


def scene(seed, height=150, width=200):
    """A smooth random picture."""
    coarse = np.random.RandomState(seed).randint(0, 256, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def recompressed(picture, quality):
    return cv2.imdecode(
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
    )


COPIES = {
    "equal": lambda p: p,
    "recompressed": lambda p: recompressed(p, 30),
    "half as large": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "enlarged": lambda p: cv2.resize(p, None, fx=1.7, fy=1.3),
    "grey": lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY),
    "brighter": lambda p: np.clip(p * 0.8 + 40, 0, 255).astype(np.uint8),
    "noisy": lambda p: np.clip(p + np.random.RandomState(0).randn(*p.shape) * 6, 0, 255).astype(np.uint8),
}


def distance(first, second):
    a, b = perceptual_hashes([first, second])
    return int((a != b).sum())


def slow_hash(grey):
    """The definition, term by term, of a 64 x 64 picture."""
    n = np.arange(64) + 0.5
    terms = np.array(
        [
            (grey * np.outer(np.cos(np.pi * u * n / 64), np.cos(np.pi * v * n / 64))).sum()
            * (0.5**0.5 if u == 0 else 1)
            * (0.5**0.5 if v == 0 else 1)
            for u, v in itertools.product(range(16), range(16))
        ]
    )
    return terms > np.median(terms)


@pytest.fixture
def write(tmp_path):
    """A function: name -> picture, split -> case."""

    def make(name, picture, split, modality="endoscopy"):
        path = tmp_path / name
        cv2.imwrite(str(path), picture)
        return Case(path, path, modality, {1: "polyp"}, name, split, "own")

    return make


def test_hash_follows_its_definition():
    grey = np.random.RandomState(0).randint(0, 256, (64, 64)).astype(np.uint8)
    assert (perceptual_hashes([grey])[0] == slow_hash(grey.astype(float))).mean() > 0.99


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("seed", range(3))
def test_copies_are_near(copy, seed):
    assert distance(scene(seed), copy(scene(seed))) <= 24


def test_other_pictures_are_far():
    hashes = perceptual_hashes([scene(seed) for seed in range(20)])
    assert min((a != b).sum() for a, b in itertools.combinations(hashes, 2)) > 60


def test_flat_pictures_have_a_hash():
    assert perceptual_hashes([np.zeros((1, 1), np.uint8)]).shape == (1, 256)
    assert perceptual_hashes([]).shape == (0, 256)


def test_pairs_across_splits_are_found_nearest_first(write):
    cases = [
        write("a.png", scene(0), "train"),
        write("b.png", scene(1), "train"),
        write("c.png", recompressed(scene(1), 40), "val"),
        write("d.png", scene(0), "val"),
        write("e.png", scene(0), "train"),
        write("f.png", scene(2), "val"),
    ]
    found = find_duplicates(cases)
    assert {(p.first.image.name, p.second.image.name) for p in found} == {
        ("a.png", "d.png"),
        ("d.png", "e.png"),
        ("b.png", "c.png"),
    }
    assert [p.distance for p in found] == sorted(p.distance for p in found)
    assert found[0].distance == 0


def test_threshold_counts_bits(write):
    cases = [write("a.png", scene(0), "train"), write("b.png", scene(1), "val")]
    bits = find_duplicates(cases, 256)[0].distance
    assert find_duplicates(cases, bits - 1) == []
    assert [p.distance for p in find_duplicates(cases, bits)] == [bits]


def test_modalities_are_not_compared(write):
    assert find_duplicates([write("a.png", scene(0), "train"), write("b.png", scene(0), "val", "xray")]) == []


def test_warning_names_five_pairs_and_counts_the_rest(write, caplog):
    cases = [write(f"{i}_{split}.png", scene(i), split) for i in range(7) for split in ("train", "val")]
    with caplog.at_level(logging.WARNING):
        pairs = warn_of_duplicates(cases)
    assert len(pairs) == 7
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith("7 near-duplicate pairs across splits")
    assert text.count("of 256 bits apart") == 5
    assert "; and 2 more. Put each pair into one group." in text


def test_nothing_is_said_of_clean_splits(write, caplog):
    assert warn_of_duplicates([write("a.png", scene(0), "train"), write("b.png", scene(1), "val")]) == []
    assert caplog.records == []


def test_unreadable_images_are_passed_over(write, caplog, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    bad = Case(tmp_path / "bad.png", tmp_path, "endoscopy", {}, "bad", "val", "own")
    missing = Case(tmp_path / "none.png", tmp_path, "endoscopy", {}, "none", "val", "own")
    cases = [write("a.png", scene(0), "train"), bad, missing, write("b.png", scene(0), "val")]
    assert [p.distance for p in find_duplicates(cases)] == [0]
    assert sum("not compared" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8)])
def test_other_arrays_are_refused(picture):
    with pytest.raises(ShapeError, match=r"expected \(H, W\) or \(H, W, 3\) uint8"):
        perceptual_hashes([picture])


@pytest.mark.data
@pytest.mark.slow
def test_no_pair_across_the_splits_of_the_data_folder(shared):
    assert find_duplicates(read_sets(shared / "data")) == []
