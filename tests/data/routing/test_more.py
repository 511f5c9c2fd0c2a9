# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of further sources for training: the table, groups on one side of a split, on small made-up clones."""

import re

import numpy as np
import pytest
from PIL import Image

from monai_effsam.data.routing.clones import RoutingSource, read_sources
from monai_effsam.data.routing.more import more_pictures
from monai_effsam.data.routing.training_sources import TRAINING_SOURCES
from monai_effsam.errors import DataError
from monai_effsam.evaluation.routing.source_table import SOURCES
from monai_effsam.targets import MODALITIES


def source(name, modality, group="(.*)"):
    pattern = rf"{name}/[^/]+\.png"
    return RoutingSource(name, modality, "a/b", "0" * 40, pattern, 40, "made up", "none", group=group)


@pytest.fixture
def clones(tmp_path):
    """A clone with 40 pictures of `ct`, of 20 patients, and as many of `cars`."""
    for name in ("ct", "cars"):
        folder = tmp_path / "a+b" / name
        folder.mkdir(parents=True)
        for number in range(40):
            picture = np.full((8, 9), number, np.uint8)
            Image.fromarray(picture).save(folder / f"p{number // 2}_{number % 2}.png")
    return tmp_path


def test_rows_of_the_table_are_sound():
    names = [row.name for row in TRAINING_SOURCES]
    assert len(set(names)) == len(names)
    assert {row.modality for row in TRAINING_SOURCES} <= {*MODALITIES, ""}
    for row in TRAINING_SOURCES:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository), row.name
        assert re.fullmatch("[0-9a-f]{40}", row.commit), row.name
        assert row.count >= 10, row.name
        assert row.shows, row.name
        assert row.terms, row.name
        assert re.compile(row.group).groups == 1, row.name
        re.compile(row.pattern)


def test_nothing_is_learned_that_routers_are_judged_on():
    judged = {row.repository for row in SOURCES}
    assert not judged & {row.repository for row in TRAINING_SOURCES}
    assert not {row.name for row in SOURCES} & {row.name for row in TRAINING_SOURCES}


def test_patients_are_on_one_side_and_foreign_pictures_apart(clones):
    sources = [source("ct", "ct", r"/(p\d+)_"), source("cars", "")]
    read = more_pictures(clones, 0.3, sources=sources)
    trained, held = ({picture.group for picture in side} for side in (read.train, read.held))
    assert not trained & held
    assert trained | held == {f"p{number}" for number in range(20)}
    assert 2 <= len(held) <= 10
    assert (len(read.train), len(read.held)) == (2 * len(trained), 2 * len(held))
    assert {picture.modality for picture in read.foreign} == {""}
    assert len(read.foreign) == 40
    again = more_pictures(clones, 0.3, sources=sources)
    assert [picture.group for picture in again.held] == [picture.group for picture in read.held]


def test_a_source_whose_patients_are_not_told_apart_is_learned_as_a_whole(clones):
    (found,) = read_sources(clones, [source("ct", "ct", "()")])
    assert {picture.group for picture in found.pictures} == {""}
    read = more_pictures(clones, 0.999, sources=[source("ct", "ct", "()")])
    assert (len(read.train), len(read.held)) == (40, 0)


def test_sources_can_be_left_out_and_one_at_least_is_wanted(clones, tmp_path):
    sources = [source("ct", "ct"), source("cars", "")]
    assert more_pictures(clones, 0.1, ("cars",), sources).foreign == ()
    with pytest.raises(DataError, match=r"expected one clone at least\. git clone --depth 1"):
        more_pictures(tmp_path / "nowhere", 0.1, sources=sources)
