# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The page of a study in the viewer, driven as a user drives it, and what the archive holds of it."""

from __future__ import annotations

import base64
import json
import time
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pydicom
from numpy.typing import NDArray

from .browser import Browser  # noqa: TID252  tests are no package on the path
from .studies import Study  # noqa: TID252

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

NAMES = """(() => { const [, set] = %s;
  const { segments } = cornerstoneTools.segmentation.state.getSegmentation('effsam-' + set.displaySetInstanceUID);
  return JSON.stringify(Object.fromEntries(Object.entries(segments).map(([value, one]) => [value, one.label]))); })()"""


class Viewer:
    """The page of one study.

    Args:
        browser: that shows it.
        base: address of the server.
        study: opened.
    """

    def __init__(self, browser: Browser, base: str, study: Study) -> None:
        self.browser, self.study = browser, study
        browser.open(f"{base}/ohif/effsam?StudyInstanceUIDs={study.study}")
        self.said("Connected.")
        browser.until(f"{VIEW}[0].getCurrentImageId()")
        self.uids = [str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in study.files]

    def part(self, name: str) -> str:
        """JavaScript of a part of the panel."""
        return f"document.querySelector('[data-effsam={name}]')"

    def said(self, text: str, state: str = "ready") -> None:
        """Wait until the panel says so; a failure that is not waited for ends the wait."""
        said = self.part("said")
        so = (
            f"{said}.dataset.state === {json.dumps(state)} && {said}.textContent.includes({json.dumps(text)})"
        )
        fresh = f"Number({said}.dataset.told) > Number({said}.dataset.before || 0)"
        self.browser.until(f"{fresh} && ({so} || {said}.dataset.state === 'failed')", 600)
        assert self.browser.js(so), self.browser.js(f"{said}.textContent")

    def press(self, name: str, text: str = "", state: str = "ready") -> None:
        """Press a button, and wait for what the panel says then."""
        self.forget()
        self.browser.js(f"{self.part(name)}.click()")
        if text:
            self.said(text, state)

    def offers(self, name: str, values: list[str]) -> None:
        """Wait until a list offers just these."""
        options = f"JSON.stringify([...{self.part(name)}.options].map(one => one.value))"
        self.browser.until(f"{options} === {json.dumps(json.dumps(values, separators=(',', ':')))}", 30)

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
        """Wait for what the panel says from now on."""
        said = self.part("said")
        self.browser.js(f"{said}.dataset.before = {said}.dataset.told")

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

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The mask by the names of its labels, those that it shows."""
        mask = self.mask()
        names = json.loads(self.browser.js(NAMES % VIEW))
        return {names[str(value)]: mask == value for value in np.unique(mask) if value}


def stored_masks(orthanc: str, study: Study) -> list[dict[str, NDArray[np.bool_]]]:
    """The segmentations of a study in the PACS: segment -> mask on the study's slices."""
    return [masks_of(seg, study) for seg in stored_segs(orthanc, study)]


def stored_segs(orthanc: str, study: Study) -> list[Any]:
    """The segmentations of a study in the PACS, in no order."""
    found = []
    rows = httpx.get(
        f"{orthanc}/dicom-web/studies/{study.study}/series", headers={"Accept": "application/dicom+json"}
    )
    for row in rows.json():
        if row["00080060"]["Value"] != ["SEG"]:
            continue
        ask = {"Level": "Instance", "Query": {"SeriesInstanceUID": row["0020000E"]["Value"][0]}}
        [instance] = httpx.post(f"{orthanc}/tools/find", json=ask).json()
        found.append(pydicom.dcmread(BytesIO(httpx.get(f"{orthanc}/instances/{instance}/file").content)))
    return found


def masks_of(seg: Any, study: Study) -> dict[str, NDArray[np.bool_]]:
    """Segment -> mask on the study's slices."""
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in study.files]
    names = {item.SegmentNumber: str(item.SegmentLabel) for item in seg.SegmentSequence}
    masks = {name: np.zeros(study.pixels.shape, bool) for name in names.values()}
    frames = np.atleast_3d(seg.pixel_array).reshape(-1, *study.pixels.shape[1:])
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        name = names[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[name][uids.index(source)] |= frame > 0
    return masks
