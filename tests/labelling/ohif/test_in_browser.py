# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The extension in Chromium, over a stand-in server and a real PACS: what is drawn, sent, stored and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("monailabel")
pytest.importorskip("highdicom")

from .browser import Browser  # noqa: E402, TID252  tests are no package on the path
from .page import VIEW, Viewer, stored_masks  # noqa: E402, TID252
from .stand_in import StandIn, automatic, prompted, read_label  # noqa: E402, TID252
from .studies import Study, make_studies  # noqa: E402, TID252

pytestmark = [pytest.mark.slow, pytest.mark.integration]


class StandInViewer(Viewer):
    """A viewer, and what the stand-in was asked through it."""

    def __init__(self, browser: Browser, server: StandIn, base: str, study: Study) -> None:
        super().__init__(browser, base, study)
        self.server = server

    @property
    def last(self) -> tuple[str, dict[str, Any]]:
        """The model and parameters that the server was asked last."""
        model, image, asked = self.server.asked[-1]
        assert image == self.study.series
        return model, asked


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, orthanc: str) -> dict[str, Study]:
    """The studies, stored in the PACS."""
    made = make_studies(tmp_path_factory.mktemp("studies"))
    for path in (path for study in made.values() for path in study.files):
        httpx.post(f"{orthanc}/instances", content=path.read_bytes()).raise_for_status()
    return made


@pytest.fixture(scope="module")
def server(studies: dict[str, Study], orthanc: str, ohif_dist: Any, tmp_path_factory: Any) -> StandIn:
    return StandIn(studies, orthanc, ohif_dist, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def address(server: StandIn, served: Any) -> str:
    return str(served(server.app))


@pytest.fixture(scope="module")
def browser(browser_program: str) -> Iterator[Browser]:
    with Browser(browser_program) as one:
        yield one
        assert one.errors == []  # the console


@pytest.fixture(params=["CT", "MR", "US", "ES"])
def viewer(
    request: Any, browser: Browser, server: StandIn, address: str, studies: dict[str, Study]
) -> StandInViewer:
    return StandInViewer(browser, server, address, studies[request.param])


@pytest.fixture
def open_viewer(
    browser: Browser, server: StandIn, address: str, studies: dict[str, Study]
) -> Callable[[str], StandInViewer]:
    return lambda name: StandInViewer(browser, server, address, studies[name])


def test_outlined_corrected_and_stored(viewer: StandInViewer, orthanc: str) -> None:
    study, slices = viewer.study, viewer.study.pixels.shape[0]
    k = slices // 3
    viewer.offers("label", ["organ", "strip"])
    viewer.press("automatic", "Done.")
    np.testing.assert_array_equal(viewer.mask(), automatic(study))

    viewer.go_to(k)
    viewer.press("foreground")
    viewer.point(30, 11)
    model, asked = viewer.last
    assert (model, asked["label"], asked["slice"]) == ("prompted_2d", "organ", k)
    assert asked["foreground"] == [[30, 11, k]]
    assert asked["background"] == []
    viewer.press("background")
    viewer.point(33, 12)
    assert viewer.last[1]["background"] == [[33, 12, k]]
    drawn = viewer.mask()
    np.testing.assert_array_equal(drawn[k] == 1, prompted(study, viewer.last[1])[k] > 0)
    others = np.arange(slices) != k
    np.testing.assert_array_equal(drawn[others], automatic(study)[others])

    viewer.press("box")
    viewer.box((14, 20), (25, 31))
    x0, x1, y0, y1, z0, z1 = viewer.last[1]["roi"]
    assert np.abs(np.array([x0, x1, y0, y1]) - [14, 25, 20, 31]).max() <= 1
    assert (z0, z1) == (k, k)
    np.testing.assert_array_equal(viewer.mask()[k] == 1, prompted(study, viewer.last[1])[k] > 0)

    before = len(stored_masks(orthanc, study))
    viewer.press("submit", "Stored: organ, strip.")
    drawn = viewer.mask()
    names, file = viewer.server.labels[study.series]
    assert names == [{"name": "organ", "idx": 1}, {"name": "strip", "idx": 2}]
    np.testing.assert_array_equal(read_label(study, file), drawn)
    stored = stored_masks(orthanc, study)
    assert len(stored) == before + 1
    assert sorted(stored[-1]) == ["organ", "strip"]
    np.testing.assert_array_equal(stored[-1]["organ"], drawn == 1)
    np.testing.assert_array_equal(stored[-1]["strip"], drawn == 2)
    assert [url for url in viewer.browser.requests if url.startswith("http") and "127.0.0.1" not in url] == []


def test_undo_takes_back_mask_and_prompt(open_viewer: Callable[[str], StandInViewer]) -> None:
    viewer = open_viewer("ES")
    viewer.press("automatic", "Done.")
    first = viewer.mask()
    viewer.press("foreground")
    viewer.point(60, 12)
    assert not np.array_equal(viewer.mask(), first)
    viewer.press("undo", "Undone.")
    np.testing.assert_array_equal(viewer.mask(), first)
    viewer.point(50, 40)
    assert viewer.last[1]["foreground"] == [[50, 40, 0]]
    viewer.press("clear", "Cleared.")
    assert not viewer.mask().any()
    viewer.press("undo", "Undone.")
    assert viewer.mask().any()


def test_empty_answer_clears(open_viewer: Callable[[str], StandInViewer]) -> None:
    viewer = open_viewer("US")
    viewer.press("automatic", "Done.")
    viewer.server.empty = True
    try:
        viewer.choose("target", "strip")
        viewer.press("byName", "Nothing found for strip.")
        np.testing.assert_array_equal(viewer.mask(), automatic(viewer.study) % 2)
        viewer.press("automatic", "Nothing found.")
        assert not viewer.mask().any()
    finally:
        viewer.server.empty = False


def test_refusal_is_shown_as_the_server_says_it(open_viewer: Callable[[str], StandInViewer]) -> None:
    viewer = open_viewer("US")
    viewer.server.refuse = "image: <b>too small</b>, expected more."
    try:
        viewer.press("automatic", "image: <b>too small</b>, expected more.", "failed")
        assert viewer.browser.js(f"{viewer.part('said')}.children.length") == 0
        assert "422" in viewer.browser.errors.pop()
    finally:
        viewer.server.refuse = ""
    viewer.press("automatic", "Done.")


def test_prompt_through_the_volume_and_three_planes(open_viewer: Callable[[str], StandInViewer]) -> None:
    viewer = open_viewer("CT")
    viewer.go_to(4)
    viewer.press("through")
    viewer.press("foreground")
    viewer.point(40, 20)
    model, asked = viewer.last
    assert (model, asked["foreground"]) == ("prompted_3d", [[40, 20, 4]])
    assert "slice" not in asked
    drawn = viewer.mask()
    np.testing.assert_array_equal(drawn == 1, prompted(viewer.study, asked) > 0)
    viewer.press("planes")
    viewer.browser.until("services.viewportGridService.getState().viewports.size === 3")
    viewer.browser.until(f"{VIEW}[0].type === 'orthographic'")
    shown = (
        "[...services.viewportGridService.getState().viewports.keys()].every(id => "
        "services.segmentationService.getSegmentationRepresentations(id, {}).length)"
    )
    viewer.browser.until(shown)
    viewer.press("automatic", "Done.")
    np.testing.assert_array_equal(viewer.mask(), automatic(viewer.study))


def test_next_image_and_training(open_viewer: Callable[[str], StandInViewer]) -> None:
    viewer = open_viewer("MR")
    for name in ("CT", "MR", "US", "ES"):
        series = next(s for s in viewer.server.studies.values() if s.name == name)
        viewer.server.labels.setdefault(series.series, ([], b""))
    kept = viewer.server.labels.pop(viewer.study.series)
    try:
        viewer.press("train")
        viewer.browser.until(f"!{viewer.part('progress')}.hidden && {viewer.part('progress')}.value > 0")
        viewer.said("The training ended.")
        viewer.browser.until(f"{viewer.part('progress')}.hidden")
        viewer.press("next")
        viewer.browser.until(f"location.search.includes({json.dumps(viewer.study.series)})")
        viewer.said("Connected.")
        viewer.browser.until(f"{VIEW}[1].SeriesInstanceUID === {json.dumps(viewer.study.series)}")
    finally:
        viewer.server.labels[viewer.study.series] = kept
    viewer.press("next", "Every image has its label.")
