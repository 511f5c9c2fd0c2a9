# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM Segmentations: what they say of the targets and of themselves, and what is refused."""

from datetime import datetime

import cv2
import numpy as np
import pydicom
import pytest

from monai_effsam.data.io import Algorithm, read_image, write_dicom_seg
from monai_effsam.errors import DataError, MissingExtraError, ShapeError, UsageError
from monai_effsam.targets import targets_of

pytest.importorskip("highdicom")

CT = targets_of("ct")


def test_segments_are_the_targets_found_in_the_words_of_the_table(make_series, tmp_path):
    image = make_series([0, 10])
    mask = np.zeros((2, 9, 7), np.uint8)
    mask[0, 0, 0], mask[1, 2, 3] = 24, 17
    algorithm = Algorithm("esp_medsam", "3.1", prompted=True)
    seg = pydicom.dcmread(write_dicom_seg(image, mask, CT, tmp_path / "out", algorithm=algorithm))
    liver, gland = seg.SegmentSequence
    assert [(s.SegmentNumber, s.SegmentLabel) for s in (liver, gland)] == [
        (1, "liver"),
        (2, "adrenal_gland_left"),
    ]
    kind, category = (
        liver.SegmentedPropertyTypeCodeSequence[0],
        liver.SegmentedPropertyCategoryCodeSequence[0],
    )
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("10200004", "SCT", "Liver")
    assert (category.CodeValue, category.CodeMeaning) == ("123037004", "Anatomical Structure")
    assert liver.SegmentDescription == "Liver; value 17 of a monai_effsam mask"
    assert (liver.SegmentAlgorithmType, liver.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "esp_medsam")
    named = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (named.AlgorithmName, named.AlgorithmVersion) == ("esp_medsam", "3.1")
    assert named.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert (seg.Modality, seg.ManufacturerModelName, seg.SeriesNumber) == ("SEG", "monai_effsam", 1004)
    assert seg.SeriesDescription == "Segmentation: liver, adrenal_gland_left"
    assert (seg.PatientID, seg.StudyInstanceUID) == ("P7", "1.2.3")


def test_the_series_is_described_and_dated(make_series, tmp_path, some_mask):
    image = make_series([0, 10])
    before = datetime.now()
    path = write_dicom_seg(image, some_mask(image), CT, tmp_path, description="Label " + 9 * "again.")
    seg = pydicom.dcmread(path)
    made = datetime.strptime(f"{seg.SeriesDate} {seg.SeriesTime}", "%Y%m%d %H%M%S.%f")
    assert before <= made <= datetime.now()
    assert (seg.ContentDate, seg.ContentTime) == (seg.SeriesDate, seg.SeriesTime)
    assert seg.SeriesDescription == "Label " + 9 * "again." + ":..."


def test_nothing_found_makes_no_file(make_series, tmp_path):
    image = make_series([0, 10])
    assert write_dicom_seg(image, np.zeros((2, 9, 7), np.uint8), CT, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_each_file_is_an_instance_of_its_own(make_series, tmp_path, some_mask):
    image = make_series([0, 10])
    first, second = (
        pydicom.dcmread(write_dicom_seg(image, some_mask(image), CT, tmp_path / n)) for n in "ab"
    )
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID


def test_sources_that_cannot_be_referred_to_are_refused(make_dicom, tmp_path, some_mask):
    image = read_image(make_dicom("a.dcm", np.zeros((9, 7), np.uint8), "DX"))
    with pytest.raises(
        DataError, match=r"a\.dcm: DICOM file has no StudyInstanceUID, expected one that a DICOM-SEG"
    ):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_that_are_gone_or_differ_are_refused(make_series, make_instance, tmp_path, some_mask):
    image = make_series([0, 10])
    make_instance("series/001.dcm", np.zeros((9, 7), np.int16), "CT", StudyInstanceUID="1.2.4")
    with pytest.raises(
        DataError, match="series: DICOM-SEG cannot be made: Source images must all be part of"
    ):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    image.sources[1].unlink()
    with pytest.raises(DataError, match=r"series: DICOM-SEG cannot be made: .*No such file"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(7, 9), (2, 9, 7)], ids=["size", "frames"])
def test_sources_that_changed_since_they_were_read_are_refused(
    make_series, make_instance, tmp_path, shape, some_mask
):
    image = make_series([0, 10])
    make_instance("series/001.dcm", np.zeros(shape, np.int16), "CT")
    with pytest.raises(DataError, match="series: DICOM files have changed since they were read"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")


def test_slices_that_cannot_be_told_apart_are_refused(make_series, tmp_path, some_mask):
    image = make_series([0, 10], SOPInstanceUID="1.2.3.1.1")
    with pytest.raises(DataError, match=r"002\.dcm: DICOM file has the SOPInstanceUID of another slice"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")


def test_wrong_calls_are_refused(make_series, tmp_path):
    image = make_series([0, 10])
    with pytest.raises(UsageError, match=r"mask has values \[99\], expected those of the targets: 12, 13, "):
        write_dicom_seg(image, np.full((2, 9, 7), 99, np.uint8), CT, tmp_path)
    with pytest.raises(ShapeError, match=r"write_dicom_seg: mask of series is uint8 \(9, 7\)"):
        write_dicom_seg(image, np.zeros((9, 7), np.uint8), CT, tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 7), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png: is raster, expected DICOM"):
        write_dicom_seg(read_image(tmp_path / "a.png"), np.zeros((1, 9, 7), np.uint8), CT, tmp_path)


def test_without_highdicom_the_message_says_what_to_install(make_series, tmp_path, monkeypatch, some_mask):
    image = make_series([0, 10])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'highdicom' is not installed.*monai-effsam\[dicom\]"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path)
