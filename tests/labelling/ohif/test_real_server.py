# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam label` with the models that ship, in Chromium, over an Orthanc: outlined, corrected, stored, read back.

What the viewer shows is held against the model itself, run here on the same files; each slice is known by its UID, so
that a mask on the wrong slice, or turned over, is seen. EFFSAM_PICTURES names a folder for pictures of the pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("monailabel")
pytest.importorskip("highdicom")
pytest.importorskip("nibabel")
pytest.importorskip("scipy")

from monai_effsam.data.io.dicom_header import DICOM_MODALITIES  # noqa: E402
from monai_effsam.labelling.requests import Clicks  # noqa: E402
from monai_effsam.labelling.service import LabellingService  # noqa: E402
from monai_effsam.targets import targets_of  # noqa: E402

from .browser import Browser  # noqa: E402, TID252  tests are no package on the path
from .demo_studies import TO_LEARN_FROM, demo_studies  # noqa: E402, TID252
from .page import VIEW, Viewer, masks_of, stored_masks, stored_segs  # noqa: E402, TID252
from .shipped import keep_picture, largest, middle, place, same, shown, start, without_label  # noqa: E402, TID252
from .studies import Study  # noqa: E402, TID252

pytestmark = [pytest.mark.slow, pytest.mark.integration]

PROMPTED = {
    "CT": ("liver", "spleen"),
    "MR": ("liver", "stomach"),
    "US": ("breast_lesion",) * 2,
    "ES": ("polyp",) * 2,
}
"""What the point is set on, and what the box is drawn around."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, orthanc: str) -> dict[str, Study]:
    """The studies, stored in the PACS."""
    made = demo_studies(tmp_path_factory.mktemp("demo"))
    for path in (path for study in made.values() for path in study.files):
        httpx.post(f"{orthanc}/instances", content=path.read_bytes()).raise_for_status()
    return made


@pytest.fixture(scope="module")
def address(
    orthanc: str, ohif_dist: Path, studies: dict[str, Study], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    address, end = start(orthanc, ohif_dist, tmp_path_factory.mktemp("label"))
    yield address
    end()


@pytest.fixture(scope="module")
def browser(browser_program: str) -> Iterator[Browser]:
    with Browser(browser_program, (1280, 900)) as one:
        yield one
        assert one.errors == []  # the console


@pytest.fixture(scope="module")
def service() -> Iterator[LabellingService]:
    """The models, here."""
    one = LabellingService()
    yield one
    one.close()


def test_next_image(browser: Browser, address: str, studies: dict[str, Study]) -> None:
    viewer = Viewer(browser, address, studies["ES"])
    left = without_label(address)
    if not left:
        viewer.press("next", "Every image has its label.")
        return
    viewer.press("next")
    browser.until("location.search.includes('initialSeriesInstanceUID')")
    opened = browser.js("new URLSearchParams(location.search).get('initialSeriesInstanceUID')")
    assert opened in left
    viewer.said("Connected.")
    browser.until(f"{VIEW}[1].SeriesInstanceUID === '{opened}'")


@pytest.mark.parametrize("name", ["CT", "MR", "US", "ES"])
def test_outlined_corrected_and_stored(
    name: str,
    browser: Browser,
    address: str,
    studies: dict[str, Study],
    service: LabellingService,
    orthanc: str,
) -> None:
    study = studies[name]
    viewer = Viewer(browser, address, study)
    for part in ("label", "target"):
        viewer.offers(part, [target.name for target in targets_of(DICOM_MODALITIES[name])])
    viewer.press("automatic", "Done.")
    drawn, expected = viewer.masks(), shown(service.automatic(place(study)), study)
    large = {name for name, mask in expected.items() if np.count_nonzero(mask) > 100}
    assert set(PROMPTED[name]) <= large <= set(drawn)
    assert [name for name in large if not same(drawn[name], expected[name])] == []
    keep_picture(browser, f"{name.lower()}_automatic")

    pointed, boxed = PROMPTED[name]
    k = int(expected[pointed].sum(axis=(1, 2)).argmax())
    i, j = middle(expected[pointed][k])
    viewer.go_to(k)
    viewer.choose("label", pointed)
    viewer.press("foreground")
    viewer.point(i, j)
    before, drawn = drawn, viewer.masks()
    asked = Clicks(foreground=((i, j, k),), slice=k)
    found = shown(service.prompted_2d(place(study), asked, label=pointed), study)[pointed]
    assert drawn[pointed][k, j, i]
    assert same(drawn[pointed][k], found[k])
    others = np.arange(len(study.pixels)) != k
    for label, mask in before.items():
        np.testing.assert_array_equal(drawn.get(label, np.zeros_like(mask))[others], mask[others])

    piece = largest(expected[boxed][k])
    rows, columns = (np.flatnonzero(piece.any(axis=axis)) for axis in (1, 0))
    viewer.choose("label", boxed)
    viewer.press("box")
    viewer.box((int(columns[0]), int(rows[0])), (int(columns[-1]), int(rows[-1])))
    boxes = viewer.masks()[boxed][k]
    inside = boxes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.count_nonzero(boxes & piece) > 0.7 * np.count_nonzero(piece)
    assert np.count_nonzero(inside) > 0.7 * np.count_nonzero(boxes)
    keep_picture(browser, f"{name.lower()}_corrected")

    viewer.press("submit", "Stored: ")
    drawn = viewer.masks()
    [stored] = stored_masks(orthanc, study)
    assert sorted(stored) == sorted(drawn)
    for label, mask in drawn.items():
        np.testing.assert_array_equal(stored[label], mask, err_msg=label)
    assert study.series not in without_label(address)
    assert [url for url in browser.requests if url.startswith("http") and not url.startswith(address)] == []


def test_what_is_submitted_again_is_told_from_the_first(
    browser: Browser, address: str, studies: dict[str, Study], orthanc: str
) -> None:
    study = studies["US2"]
    viewer = Viewer(browser, address, study)
    viewer.press("automatic", "Done.")
    viewer.press("submit", "Stored: ")
    viewer.press("clear", "Cleared.")
    viewer.press("box")
    viewer.box((40, 40), (120, 100))
    viewer.press("submit", "Stored: ")
    drawn = viewer.masks()["breast_lesion"]
    segs = sorted(stored_segs(orthanc, study), key=lambda seg: seg.ContentDate + seg.ContentTime)
    assert len({seg.SeriesDescription for seg in segs}) == len(segs) == 2
    np.testing.assert_array_equal(masks_of(segs[-1], study)["breast_lesion"], drawn)
    listed = [str(seg.SeriesDescription) for seg in segs]
    viewer = Viewer(browser, address, study)
    for one in listed:
        browser.until(f"document.body.innerText.includes({json.dumps(one)})")
    keep_picture(browser, "submitted_twice")


def test_followed_through_the_volume_and_taken_back(
    browser: Browser, address: str, studies: dict[str, Study], service: LabellingService
) -> None:
    study = studies["CT"]
    expected = shown(service.automatic(place(study)), study)["spleen"]
    k = len(expected) // 2
    i, j = middle(expected[k])
    viewer = Viewer(browser, address, study)
    viewer.choose("label", "spleen")
    viewer.go_to(k)
    viewer.press("through")
    viewer.press("foreground")
    viewer.point(i, j)
    drawn = viewer.masks()
    assert list(drawn) == ["spleen"]
    assert drawn["spleen"][k, j, i]
    answer = service.prompted_3d(place(study), Clicks(foreground=((i, j, k),)), label="spleen")
    assert same(drawn["spleen"], shown(answer, study)["spleen"])
    assert np.count_nonzero(drawn["spleen"].any(axis=(1, 2))) > 1
    viewer.press("undo", "Undone.")
    assert not viewer.mask().any()


def test_one_target_and_what_the_server_refuses(
    browser: Browser, address: str, studies: dict[str, Study], service: LabellingService
) -> None:
    study = studies["ES"]
    viewer = Viewer(browser, address, study)
    viewer.choose("target", "polyp")
    viewer.press("byName", "Done.")
    expected = shown(service.automatic(place(study), targets=["polyp"]), study)
    assert same(viewer.masks()["polyp"], expected["polyp"])
    before = viewer.mask()
    target = viewer.part("target")
    browser.js(f"{target}.append(new Option('liver'))")  # a page that does not know what fits
    viewer.choose("target", "liver")
    viewer.press("byName", "liver", "failed")
    assert "400" in browser.errors.pop()
    np.testing.assert_array_equal(viewer.mask(), before)


def test_training_is_watched_and_stopped(browser: Browser, address: str, studies: dict[str, Study]) -> None:
    for name in TO_LEARN_FROM:
        viewer = Viewer(browser, address, studies[name])
        viewer.press("automatic", "Done.")
        viewer.press("submit", "Stored: ")
    viewer.press("train", "Training.")
    bar = viewer.part("progress")
    browser.until(f"!{bar}.hidden && !{viewer.part('stop')}.disabled")
    browser.until(f"{bar}.value > 0", 600)
    viewer.press("stop")
    viewer.said("The training was stopped.")
    browser.until(f"{bar}.hidden && !{viewer.part('train')}.disabled")
    viewer.press("automatic", "Done.")
    assert set(viewer.masks()) == {"fetal_head"}


def test_behind_a_log_in(
    browser_program: str, orthanc: str, ohif_dist: Path, studies: dict[str, Study], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a secret that is long enough")
    address, end = start(orthanc, ohif_dist, tmp_path, "--token-file", str(token))
    try:
        with Browser(browser_program) as browser:
            browser.open(f"{address}/ohif/")
            browser.until("location.pathname === '/login' && document.forms.length")
            secret = json.dumps(token.read_text())
            browser.js(
                f"document.querySelector('[name=password]').value = {secret}; document.forms[0].submit()"
            )
            browser.until("location.pathname.startsWith('/ohif')")
            viewer = Viewer(browser, address, studies["ES"])
            viewer.press("automatic", "Done.")
            assert set(viewer.masks()) == {"polyp"}
    finally:
        end()
