# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM Segmentations: the very mask, read back by highdicom and by pydicom alone, on the frames of the source."""

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from monai_effsam.data.io import Algorithm, read_image, write_dicom_seg
from monai_effsam.errors import DataError, MissingExtraError, ShapeError, UsageError
from monai_effsam.targets import targets_of

highdicom = pytest.importorskip("highdicom")

CT = targets_of("ct")
OBLIQUE = [0.9210609941, 0.0, 0.3894183423, 0.0, 1.0, 0.0]


@pytest.fixture
def make(make_dicom):
    """Writes a DICOM file with an identity: the study 1.2.3, the series 1.2.3.1, the instance 1.2.3.1.N."""

    def write(name, pixels, modality, number=1, **attributes):
        known = {
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.3.1",
            "SOPInstanceUID": f"1.2.3.1.{number}",
        }
        return make_dicom(
            name, pixels, modality, **{**known, "PatientID": "P7", "SeriesNumber": 4, **attributes}
        )

    return write


@pytest.fixture
def series(make, tmp_path):
    """Writes slices of a CT series, in the order of `heights`, and reads them; slices grow along the normal."""

    def write(heights, orientation=(1, 0, 0, 0, 1, 0), **attributes):
        normal = np.cross(orientation[:3], orientation[3:])
        known = {"FrameOfReferenceUID": "1.2.3.9", "SliceThickness": 2.5, "PixelSpacing": [0.75, 0.5]}
        for number, height in enumerate(heights, 1):
            place = [round(float(v), 6) for v in np.array([-10, 20, 5]) + height * normal]
            make(f"series/{number:03}.dcm", np.full((9, 7), number, np.int16), "CT", number, **{
                **known, "ImageOrientationPatient": list(orientation), "ImagePositionPatient": place,
                "RescaleSlope": 1, "RescaleIntercept": 0, "InstanceNumber": number, **attributes,
            })  # fmt: skip
        return read_image(tmp_path / "series")

    return write


def item(**attributes) -> Dataset:
    data = Dataset()
    for key, value in attributes.items():
        setattr(data, key, value)
    return data


def enhanced(places, orientations=None, reference="1.2.3.9") -> dict:
    """Attributes of a multi-frame object whose frames have places of their own."""
    groups = [item(PlanePositionSequence=[item(ImagePositionPatient=list(place))]) for place in places]
    for group, orientation in zip(groups, orientations or (), strict=False):
        group.PlaneOrientationSequence = [item(ImageOrientationPatient=list(orientation))]
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[2.0, 0.5], SliceThickness=4.0)])
    if orientations is None:
        shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": groups,
            "FrameOfReferenceUID": reference}  # fmt: skip


def some_mask(image, values=(12, 17), seed=3) -> np.ndarray:
    """Random pixels of two targets; the second slice, if there is one, shows nothing and the third one target."""
    random = np.random.default_rng(seed)
    mask = random.choice(np.array([0, *values], np.uint8), (len(image), *image.size))
    mask[1:2] = 0
    mask[2:3][mask[2:3] == values[0]] = 0
    return mask


def frames_by_pydicom(path, image, targets=CT) -> np.ndarray:
    """The mask, from nothing but the standard: bits, segment numbers and references to source frames."""
    seg = pydicom.dcmread(path)
    values = {target.name: target.value for target in targets}
    by_number = {s.SegmentNumber: values[s.SegmentLabel] for s in seg.SegmentSequence}
    order = {}
    for source in image.sources:
        data = pydicom.dcmread(source, stop_before_pixels=True)
        for number in range(1, int(data.get("NumberOfFrames") or 1) + 1):
            order[str(data.SOPInstanceUID), number] = len(order)
    size = seg.Rows * seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    mask = np.zeros((len(image), seg.Rows, seg.Columns), np.uint8)
    for k, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.SpatialLocationsPreserved == "YES"
        index = order[str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)]
        shown = bits[k * size : (k + 1) * size].reshape(seg.Rows, seg.Columns).astype(bool)
        assert shown.any()
        mask[index][shown] = by_number[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
    return mask


def frames_by_highdicom(path, image, targets=CT) -> np.ndarray:
    """The same by highdicom's reader."""
    seg = highdicom.seg.segread(path)
    values = {target.name: target.value for target in targets}
    table = np.array([0, *(values[s.SegmentLabel] for s in seg.SegmentSequence)], np.uint8)
    uids = [pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in image.sources]
    more = {"combine_segments": True, "relabel": False, "ignore_spatial_locations": True,
            "assert_missing_frames_are_empty": True}  # fmt: skip
    if len(uids) == 1 and len(image) > 1:
        return table[seg.get_pixels_by_source_frame(uids[0], list(range(1, len(image) + 1)), **more)]
    return table[seg.get_pixels_by_source_instance(uids, **more)]


def check_round_trip(image, out, targets=CT, values=(12, 17)) -> Dataset:
    """Write a mask, read it back both ways, and give the object."""
    mask = some_mask(image, values)
    path = write_dicom_seg(image, mask, targets, out)
    assert path == out / f"{image.name}_seg.dcm"
    assert (frames_by_pydicom(path, image, targets) == mask).all()
    assert (frames_by_highdicom(path, image, targets) == mask).all()
    seg = pydicom.dcmread(path)
    indices = [tuple(np.atleast_1d(g.FrameContentSequence[0].DimensionIndexValues)) for g in groups_of(seg)]
    assert len(set(indices)) == len(indices)
    check_conformance(seg)
    return seg


def groups_of(seg) -> list[Dataset]:
    return list(seg.PerFrameFunctionalGroupsSequence)


def check_conformance(seg) -> None:
    """What dciodvfy looks at first: every attribute of type 1 has a value, every one of type 2 is there."""
    from highdicom._iods import IOD_MODULE_MAP
    from highdicom._modules import MODULE_ATTRIBUTE_MAP

    for module in IOD_MODULE_MAP["segmentation"]:
        if module["usage"] != "M":
            continue
        for row in MODULE_ATTRIBUTE_MAP[module["key"]]:
            if row["path"] in (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"]):
                continue  # a functional group stands in one of them, or in none
            places = [seg]
            for step in row["path"]:
                places = [inner for place in places for inner in place.get(step) or ()]
            for place in places:
                if row["type"] in ("1", "2"):
                    assert row["keyword"] in place, (module["key"], row)
                if row["type"] == "1":
                    assert place[row["keyword"]].VM > 0, (module["key"], row)


def check_unplaced(seg) -> None:
    """No frame of reference and nothing that only makes sense in one; frames are numbered as in the source."""
    assert "FrameOfReferenceUID" not in seg
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert not {"PlaneOrientationSequence", "PixelMeasuresSequence"} & set(shared.dir())
    for group in groups_of(seg):
        assert "PlanePositionSequence" not in group
        assert group.FrameContentSequence[0].InStackPositionNumber >= 1


def test_a_single_slice_keeps_its_place(make, tmp_path):
    path = make("a.dcm", np.zeros((9, 7), np.int16), "CT", FrameOfReferenceUID="1.2.3.9", PixelSpacing=[0.75, 0.5],
                ImageOrientationPatient=OBLIQUE, ImagePositionPatient=[1.25, -3, 7], SliceThickness=2)  # fmt: skip
    seg = check_round_trip(read_image(path), tmp_path / "out")
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert seg.FrameOfReferenceUID == "1.2.3.9"
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == OBLIQUE
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.75, 0.5]
    assert shared.PixelMeasuresSequence[0].SliceThickness == 2
    assert [g.PlanePositionSequence[0].ImagePositionPatient for g in groups_of(seg)] == [[1.25, -3, 7]] * 2


@pytest.mark.parametrize(
    ("heights", "orientation"),
    [
        ([30, 0, 20, 10, 40], [1, 0, 0, 0, 1, 0]),
        ([0, 2.5, 5, 7.5], OBLIQUE),
        ([0, 2.5, 5, 12.5, 15], [1, 0, 0, 0, 1, 0]),
        ([0, 2.5, 5, 7.5], [1, 0, 0, 0, -1, 0]),
        ([7.5, 5, 0, 2.5], [0, 1, 0, 0, 0, -1]),
        ([3 * i for i in range(13)], [1, 0, 0, 0, 1, 0]),  # frames of 63 bits: no byte ends with a frame
    ],
    ids=["unsorted", "oblique", "missing slice", "negative direction", "sagittal", "many"],
)
def test_frames_of_a_series_lie_on_their_slices(series, tmp_path, heights, orientation):
    seg = check_round_trip(series(heights, orientation), tmp_path / "out")
    places = {}
    for path in (tmp_path / "series").iterdir():
        data = pydicom.dcmread(path)
        places[data.SOPInstanceUID] = data.ImagePositionPatient
    for group in groups_of(seg):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert np.allclose(
            group.PlanePositionSequence[0].ImagePositionPatient, places[source.ReferencedSOPInstanceUID]
        )
        assert source.ReferencedSOPClassUID == pydicom.uid.CTImageStorage
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.75, 0.5]
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(heights)


def test_thickness_that_is_not_told_is_the_distance_of_the_slices(series, tmp_path):
    seg = check_round_trip(series([0, 4, 8], SliceThickness=None), tmp_path / "out")
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 4


def test_thickness_that_nothing_tells_is_left_out(make, tmp_path):
    image = read_image(make("a.dcm", np.zeros((9, 7), np.int16), "CT", FrameOfReferenceUID="1.2.3.9",
                            PixelSpacing=[1, 1], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                            ImagePositionPatient=[0, 0, 0]))  # fmt: skip
    mask = some_mask(image)
    path = write_dicom_seg(image, mask, CT, tmp_path / "out")
    assert (frames_by_pydicom(path, image) == mask).all()
    assert (
        "SliceThickness"
        not in pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    )


@pytest.mark.parametrize("steps", [(0, 4, 8, 12), (12, 8, 4, 0), (4, 0, 12, 8)], ids=str)
def test_frames_of_one_file_keep_their_places(make, tmp_path, steps):
    places = [(1, 2, step) for step in steps]
    image = read_image(make("a.dcm", np.zeros((4, 9, 7), np.int16), "MR", **enhanced(places)))
    seg = check_round_trip(image, tmp_path / "out")
    for group in groups_of(seg):
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert group.PlanePositionSequence[0].ImagePositionPatient == list(places[number - 1])


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        enhanced([(0, 0, 0)] * 4),
        enhanced([(0, 0, 4 * i) for i in range(4)], reference=""),
        enhanced([(0, 0, 4 * i) for i in range(4)], [[1, 0, 0, 0, 1, 0], OBLIQUE] * 2),
        {"FrameOfReferenceUID": "1.2.3.9"},
    ],
    ids=["cine", "one place", "no frame of reference", "crossing planes", "reference without places"],
)
def test_frames_without_places_of_their_own_are_numbered(make, tmp_path, attributes):
    frames = np.random.default_rng(0).integers(0, 255, (4, 9, 7, 3), dtype=np.uint8)
    seg = check_round_trip(read_image(make("a.dcm", frames, "US", **attributes)), tmp_path / "out")
    check_unplaced(seg)
    for group in groups_of(seg):
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert group.FrameContentSequence[0].InStackPositionNumber == number


def test_a_series_without_frame_of_reference_is_numbered(series, tmp_path):
    check_unplaced(check_round_trip(series([0, 10, 20, 30], FrameOfReferenceUID=None), tmp_path / "out"))


@pytest.mark.parametrize(
    ("modality", "shape", "attributes"),
    [
        ("DX", (9, 7), {"PhotometricInterpretation": "MONOCHROME1", "ImagerPixelSpacing": [0.1, 0.1]}),
        ("CR", (9, 7), {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}),
        ("ES", (9, 7, 3), {}),
        ("US", (9, 7, 3), {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6"}),
        ("US", (1, 9, 7), {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1"}),
        ("OT", (9, 7), {"PixelSpacing": [0.5, 0.5]}),
        ("CT", (9, 7), {"PixelSpacing": [0.5, 0.5]}),
    ],
    ids=["DX", "CR", "endoscopy", "retired class", "one frame of many", "secondary capture", "CT without a place"],
)  # fmt: skip
def test_pictures_are_referred_to_pixel_for_pixel(make, tmp_path, modality, shape, attributes):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    path = make("a.dcm", pixels, modality, **attributes)
    seg = check_round_trip(read_image(path), tmp_path / "out")
    check_unplaced(seg)
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == pydicom.dcmread(path).SOPClassUID
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1.1"


@pytest.mark.data
@pytest.mark.parametrize("name", ["us_multiframe_ybr_jpeg", "dx_image", "ct_small", "mr_small", "mr_rle"])
def test_real_files_come_back(shared, tmp_path, name):
    image = read_image(shared / "data" / "dicom" / f"{name}.dcm")
    seg = check_round_trip(image, tmp_path / "out")
    assert ("FrameOfReferenceUID" in seg) == (name[:2] in ("ct", "mr"))
    assert seg.LossyImageCompression == ("01" if name.startswith("us") else "00")


def test_lossy_compression_of_the_source_is_told_also_where_the_file_does_not(make, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)
    path = make("a.dcm", pixels, "US")
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    data.PixelData = encapsulate([cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 5])[1].tobytes()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    seg = check_round_trip(read_image(path), tmp_path / "out")
    assert (seg.LossyImageCompression, seg.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert seg.LossyImageCompressionRatio == pytest.approx(64 * 48 / path.stat().st_size, abs=0.01)


def test_segments_are_the_targets_found_in_the_words_of_the_table(series, tmp_path):
    image = series([0, 10])
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


def test_nothing_found_makes_no_file(series, tmp_path):
    image = series([0, 10])
    assert write_dicom_seg(image, np.zeros((2, 9, 7), np.uint8), CT, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_each_file_is_an_instance_of_its_own(series, tmp_path):
    image = series([0, 10])
    first, second = (
        pydicom.dcmread(write_dicom_seg(image, some_mask(image), CT, tmp_path / n)) for n in "ab"
    )
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID


def test_names_in_any_alphabet_are_kept(series, tmp_path):
    image = series(
        [0, 10], SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος", StudyDescription="ΚΟΙΛΙΑ"
    )
    seg = check_round_trip(image, tmp_path / "out")
    assert (str(seg.PatientName), seg.StudyDescription) == ("Διονυσιος", "ΚΟΙΛΙΑ")
    assert seg.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.filterwarnings("ignore:Invalid value")  # of the test, which writes them
def test_what_is_wrong_in_the_source_is_not_passed_on(series, tmp_path):
    image = series([0, 10], PatientSex="X", PatientBirthDate="1.1.1970", StudyTime="noon", PatientAge="060Y")
    seg = check_round_trip(image, tmp_path / "out")
    assert (seg.PatientSex, seg.PatientBirthDate, seg.StudyTime, seg.PatientAge) == ("", "", "", "060Y")


def test_sources_that_cannot_be_referred_to_are_refused(make_dicom, tmp_path):
    image = read_image(make_dicom("a.dcm", np.zeros((9, 7), np.uint8), "DX"))
    with pytest.raises(
        DataError, match=r"a\.dcm: DICOM file has no StudyInstanceUID, expected one that a DICOM-SEG"
    ):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_that_are_gone_or_differ_are_refused(series, make, tmp_path):
    image = series([0, 10])
    make("series/001.dcm", np.zeros((9, 7), np.int16), "CT", StudyInstanceUID="1.2.4")
    with pytest.raises(
        DataError, match="series: DICOM-SEG cannot be made: Source images must all be part of"
    ):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    image.sources[1].unlink()
    with pytest.raises(DataError, match=r"series: DICOM-SEG cannot be made: .*No such file"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(7, 9), (2, 9, 7)], ids=["size", "frames"])
def test_sources_that_changed_since_they_were_read_are_refused(series, make, tmp_path, shape):
    image = series([0, 10])
    make("series/001.dcm", np.zeros(shape, np.int16), "CT")
    with pytest.raises(DataError, match="series: DICOM files have changed since they were read"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")


def test_slices_that_cannot_be_told_apart_are_refused(series, tmp_path):
    image = series([0, 10], SOPInstanceUID="1.2.3.1.1")
    with pytest.raises(DataError, match=r"002\.dcm: DICOM file has the SOPInstanceUID of another slice"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path / "out")


def test_wrong_calls_are_refused(series, tmp_path):
    image = series([0, 10])
    with pytest.raises(UsageError, match=r"mask has values \[99\], expected those of the targets: 12, 13, "):
        write_dicom_seg(image, np.full((2, 9, 7), 99, np.uint8), CT, tmp_path)
    with pytest.raises(ShapeError, match=r"write_dicom_seg: mask of series is uint8 \(9, 7\)"):
        write_dicom_seg(image, np.zeros((9, 7), np.uint8), CT, tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 7), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png: is raster, expected DICOM"):
        write_dicom_seg(read_image(tmp_path / "a.png"), np.zeros((1, 9, 7), np.uint8), CT, tmp_path)


def test_without_highdicom_the_message_says_what_to_install(series, tmp_path, monkeypatch):
    image = series([0, 10])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'highdicom' is not installed.*monai-effsam\[dicom\]"):
        write_dicom_seg(image, some_mask(image), CT, tmp_path)
