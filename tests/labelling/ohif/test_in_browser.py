# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The extension in Chromium, over a stand-in server and a real PACS: what is drawn, sent, stored and read back."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("monailabel")
pytest.importorskip("highdicom")

from .browser import Browser  # noqa: E402, TID252  tests are no package on the path
from .stand_in import StandIn, automatic, prompted, read_label  # noqa: E402, TID252
from .studies import Study, make_studies  # noqa: E402, TID252

pytestmark = [pytest.mark.slow, pytest.mark.integration]

VIEW = """(() => { const g = services.viewportGridService.getState();
  const vp = services.cornerstoneViewportService.getCornerstoneViewport(g.activeViewportId);
  const [uid] = g.viewports.get(g.activeViewportId).displaySetInstanceUIDs;
  const set = services.displaySetService.getDisplaySetByUID(uid);
  return [vp, set]; })()"""
MASK = """(() => { const [vp, set] = %s;
  const map = cornerstoneTools.segmentation.state.getSegmentation('effsam-' + set.displaySetInstanceUID);
  if (!map) return null;
  const { imageIds, referencedImageIds } = map.representationData.Labelmap;
  return JSON.stringify(referencedImageIds.map((id, n) => [cornerstone.metaData.get('instance', id).SOPInstanceUID,
    btoa(String.fromCharCode(...cornerstone.cache.getImage(imageIds[n]).voxelManager.getScalarData()))])); })()"""


class Viewer:
    """The page of one study.

    Args:
        browser: that shows it.
        server: that it talks to.
        base: address of the server.
        study: opened.
    """

    def __init__(self, browser: Browser, server: StandIn, base: str, study: Study) -> None:
        self.browser, self.server, self.study = browser, server, study
        browser.open(f"{base}/ohif/effsam?StudyInstanceUIDs={study.study}")
        self.said("Connected.")
        browser.until(f"{VIEW}[0].getCurrentImageId()")
        self.uids = [str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in study.files]

    def part(self, name: str) -> str:
        """JavaScript of a part of the panel."""
        return f"document.querySelector('[data-effsam={name}]')"

    def said(self, text: str, state: str = "ready") -> None:
        """Wait until the panel says so."""
        said = self.part("said")
        self.browser.until(
            f"{said}.dataset.state === {json.dumps(state)} && {said}.textContent.includes({json.dumps(text)})",
            60,
        )

    def press(self, name: str, text: str = "", state: str = "ready") -> None:
        """Press a button, and wait for what the panel says then."""
        self.forget()
        self.browser.js(f"{self.part(name)}.click()")
        if text:
            self.said(text, state)

    def choose(self, name: str, value: str) -> None:
        """Choose from a list."""
        part = self.part(name)
        self.browser.js(f"{part}.value = {json.dumps(value)}; {part}.dispatchEvent(new Event('change'))")

    def go_to(self, k: int) -> None:
        """Show a slice, by its number along the normal."""
        shown = f"cornerstone.metaData.get('instance', {VIEW}[0].getCurrentImageId()).SOPInstanceUID"
        same = f"id => cornerstone.metaData.get('instance', id).SOPInstanceUID === '{self.uids[k]}'"
        at = f"vp.getImageIds().findIndex({same})"
        stays = 0
        for _ in range(60):  # a viewer that is still loading goes back to its first image
            stays = stays + 1 if self.browser.js(shown) == self.uids[k] else 0
            if stays == 3:
                return
            if not stays:
                self.browser.js(f"(async () => {{ const [vp] = {VIEW}; await vp.setImageIdIndex({at}); }})()")
            time.sleep(0.5)
        raise TimeoutError(f"slice {k} does not stay")

    def place(self, i: int, j: int) -> tuple[float, float]:
        """Where a pixel of the slice is on the page."""
        found = self.browser.js(
            f"(() => {{ const [vp] = {VIEW}; const world = vp.getImageData().imageData.indexToWorld([{i}, {j}, 0]);"
            " const [x, y] = vp.worldToCanvas(world); const box = vp.element.getBoundingClientRect();"
            " return [x + box.left, y + box.top]; })()"
        )
        return found[0], found[1]

    def forget(self) -> None:
        """Blank what the panel said, so that what it says next is seen."""
        self.browser.js(f"{self.part('said')}.textContent = ''")

    def point(self, i: int, j: int) -> None:
        """Click at a pixel."""
        self.forget()
        self.browser.click(*self.place(i, j))
        self.said("Done.")

    def box(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Draw a box from pixel to pixel."""
        self.forget()
        self.browser.click(*self.place(*start), self.place(*end))
        self.said("Done.")

    def mask(self) -> NDArray[np.uint8]:
        """(slices, rows, columns) as the viewer has it, slices along the normal."""
        found = dict(json.loads(self.browser.js(MASK % VIEW)))
        shape = self.study.pixels.shape[1:]
        return np.stack(
            [np.frombuffer(base64.b64decode(found[uid]), np.uint8).reshape(shape) for uid in self.uids]
        )

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


@pytest.fixture(params=["CT", "MR", "US", "ES"])
def viewer(
    request: Any, browser: Browser, server: StandIn, address: str, studies: dict[str, Study]
) -> Viewer:
    return Viewer(browser, server, address, studies[request.param])


@pytest.fixture
def open_viewer(
    browser: Browser, server: StandIn, address: str, studies: dict[str, Study]
) -> Callable[[str], Viewer]:
    return lambda name: Viewer(browser, server, address, studies[name])


def stored_masks(orthanc: str, study: Study) -> list[dict[str, NDArray[np.bool_]]]:
    """The segmentations of a study in the PACS: segment -> mask on the study's slices."""
    found = []
    rows = httpx.get(
        f"{orthanc}/dicom-web/studies/{study.study}/series", headers={"Accept": "application/dicom+json"}
    )
    for row in rows.json():
        if row["00080060"]["Value"] != ["SEG"]:
            continue
        ask = {"Level": "Instance", "Query": {"SeriesInstanceUID": row["0020000E"]["Value"][0]}}
        [instance] = httpx.post(f"{orthanc}/tools/find", json=ask).json()
        seg = pydicom.dcmread(BytesIO(httpx.get(f"{orthanc}/instances/{instance}/file").content))
        found.append(_segments(seg, study))
    return found


def _segments(seg: Any, study: Study) -> dict[str, NDArray[np.bool_]]:
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in study.files]
    names = {item.SegmentNumber: str(item.SegmentLabel) for item in seg.SegmentSequence}
    masks = {name: np.zeros(study.pixels.shape, bool) for name in names.values()}
    frames = np.atleast_3d(seg.pixel_array).reshape(-1, *study.pixels.shape[1:])
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        name = names[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[name][uids.index(source)] |= frame > 0
    return masks


def test_outlined_corrected_and_stored(viewer: Viewer, orthanc: str) -> None:
    study, slices = viewer.study, viewer.study.pixels.shape[0]
    k = slices // 3
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


def test_undo_takes_back_mask_and_prompt(open_viewer: Callable[[str], Viewer]) -> None:
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


def test_empty_answer_clears(open_viewer: Callable[[str], Viewer]) -> None:
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


def test_refusal_is_shown_as_the_server_says_it(open_viewer: Callable[[str], Viewer]) -> None:
    viewer = open_viewer("US")
    viewer.server.refuse = "image: <b>too small</b>, expected more."
    try:
        viewer.press("automatic", "image: <b>too small</b>, expected more.", "failed")
        assert viewer.browser.js(f"{viewer.part('said')}.children.length") == 0
    finally:
        viewer.server.refuse = ""
    viewer.press("automatic", "Done.")


def test_prompt_through_the_volume_and_three_planes(open_viewer: Callable[[str], Viewer]) -> None:
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


def test_next_image_and_training(open_viewer: Callable[[str], Viewer]) -> None:
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
