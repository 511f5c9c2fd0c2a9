# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A run that also writes DICOM Segmentations: who gets one, what is said of the others, second runs."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from monai_effsam.data.io import Algorithm
from monai_effsam.errors import MissingExtraError, UsageError
from monai_effsam.inference import Segmenter
from monai_effsam.inference import run as run_module
from monai_effsam.inference.dicom_seg import algorithm_of
from monai_effsam.inference.plan import Request, make_plan
from monai_effsam.inference.run import run_plan
from monai_effsam.specs import Prompts

pytest.importorskip("highdicom")


@pytest.fixture
def scan(tmp_path):
    """Writes an ultrasound picture with a bright block (or none), rows 10-30, columns 20-40."""

    def write(name="scan.dcm", grey=255, **attributes) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{sum(name.encode())}"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        pixels = np.zeros((48, 64), np.uint8)
        pixels[10:30, 20:40] = grey
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "Modality": "US", "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "Rows": 48, "Columns": 64, "BitsAllocated": 8,
            "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": pixels.tobytes(), **attributes,
        }  # fmt: skip
        for key, value in values.items():
            setattr(data, key, value)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.save_as(path, write_like_original=False)
        return path

    return write


@pytest.fixture
def go(segmenter, tmp_path):
    """Plans and runs with a DICOM-SEG asked for; returns the outcomes."""

    def start(*inputs: Path, **more):
        options = {"dicom_seg": True, "modality": "ultrasound", "targets": ("fetal_head",), **more}
        return run_plan(make_plan(Request(inputs, tmp_path / "out", **options)), segmenter)

    return start


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_scan_gets_a_segmentation_of_what_was_found(go, scan, tmp_path, lines):
    (outcome,) = go(scan())
    out = tmp_path / "out"
    assert names(out) == ["results.jsonl", "scan_mask.png", "scan_overlay.png", "scan_seg.dcm"]
    (record,) = lines(out)
    assert (record["dicom_seg"], record["notes"]) == ("scan_seg.dcm", [])
    assert record == outcome.record
    seg = pydicom.dcmread(out / "scan_seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["fetal_head"]
    assert int(seg.pixel_array.sum()) == record["targets"][0]["area_px"]
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_a_prompted_outline_is_semiautomatic(go, scan, tmp_path):
    go(scan(), prompts=Prompts(box=(20, 10, 40, 30)))
    assert (
        pydicom.dcmread(tmp_path / "out/scan_seg.dcm").SegmentSequence[0].SegmentAlgorithmType
        == "SEMIAUTOMATIC"
    )


def test_an_object_without_a_name_is_an_anatomical_structure(scan, tiny_promptable, tmp_path):
    request = Request((scan(),), tmp_path / "out", prompts=Prompts(box=(20, 10, 40, 30)), dicom_seg=True)
    run_plan(make_plan(request, promptable=True), Segmenter.open(tiny_promptable))
    (segment,) = pydicom.dcmread(tmp_path / "out/scan_seg.dcm").SegmentSequence
    assert segment.SegmentLabel == "object"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_nothing_found_makes_a_note_and_takes_an_older_file_away(go, scan, tmp_path, lines):
    go(scan())
    scan(grey=0)
    go(tmp_path / "in/scan.dcm", overwrite=True)
    (record,) = lines(tmp_path / "out")
    assert (record["dicom_seg"], record["notes"]) == (None, ["no DICOM-SEG: nothing was found"])
    assert not (tmp_path / "out/scan_seg.dcm").exists()


def test_other_inputs_of_the_run_make_a_note(go, scan, picture, tmp_path, lines):
    go(scan(), picture("block.png"))
    records = lines(tmp_path / "out")
    assert [r["dicom_seg"] for r in records] == ["scan_seg.dcm", None]
    assert records[1]["notes"] == ["no DICOM-SEG: the input is raster, not DICOM"]
    assert "error" not in records[1]


def test_the_key_is_there_only_if_asked_for_also_in_errors(go, scan, tmp_path, lines):
    scan("a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    scan("b.dcm")
    go(tmp_path / "in")
    assert [r["dicom_seg"] for r in lines(tmp_path / "out")] == [None, "b_seg.dcm"]
    go(tmp_path / "in", overwrite=True, dicom_seg=False)
    assert not any("dicom_seg" in r for r in lines(tmp_path / "out"))


def test_a_scan_that_cannot_be_referred_to_fails_and_leaves_nothing(go, scan, tmp_path):
    (outcome,) = go(scan(StudyInstanceUID=None))
    assert "has no StudyInstanceUID" in outcome.error
    assert names(tmp_path / "out") == ["results.jsonl"]


def test_a_line_that_cannot_be_written_takes_the_segmentation_back(go, scan, tmp_path, monkeypatch):
    monkeypatch.setattr(
        run_module.ResultsFile, "append", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(OSError, match="full"):
        go(scan())
    assert not [name for name in names(tmp_path / "out") if name.endswith(".dcm")]


def test_an_older_segmentation_is_replaced_only_if_told(go, scan, tmp_path):
    path = scan()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scan_seg.dcm").write_bytes(b"older")
    with pytest.raises(UsageError, match=r"scan_seg\.dcm: exists.*--overwrite"):
        go(path)
    go(path, dicom_seg=False)  # not ours to look at
    assert (tmp_path / "out/scan_seg.dcm").read_bytes() == b"older"
    go(path, overwrite=True)
    assert pydicom.dcmread(tmp_path / "out/scan_seg.dcm").Modality == "SEG"


def test_resume_makes_the_segmentations_that_an_earlier_run_was_not_asked_for(go, scan, tmp_path, lines):
    path = scan()
    go(path, dicom_seg=False)
    assert len(go(path, resume=True)) == 1
    assert (tmp_path / "out/scan_seg.dcm").is_file()
    assert go(path, resume=True) == []
    (tmp_path / "out/scan_seg.dcm").unlink()
    assert len(go(path, resume=True)) == 1
    assert len(lines(tmp_path / "out")) == 1


def test_a_request_that_nothing_can_fulfil_is_refused(go, picture, scan, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no input is DICOM, expected at least one"):
        go(picture())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="highdicom"):
        go(scan())
    assert not (tmp_path / "out").exists()


def test_segmentations_beside_the_scans_are_not_taken_for_scans(go, scan, tmp_path, segmenter):
    scan()
    request = Request((tmp_path / "in",), tmp_path / "in", "ultrasound", ("fetal_head",), dicom_seg=True)
    run_plan(make_plan(request), segmenter)
    again = make_plan(Request((tmp_path / "in",), tmp_path / "out", "ultrasound"))
    assert [job.source.name for job in again.jobs] == ["scan"]


def test_the_model_is_named_by_its_card():
    card = {"name": "esp_medsam", "version": "0.3", "sha256": "10aa38454bf0cee8"}
    assert algorithm_of(card, prompted=True) == Algorithm("monai_effsam esp_medsam", "0.3 10aa38454bf0", True)
    assert algorithm_of({}, prompted=False) == Algorithm()
