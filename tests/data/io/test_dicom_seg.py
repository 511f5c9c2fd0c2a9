# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM Segmentations: the very mask, read back by highdicom and by pydicom alone, on the frames of the source."""

from collections.abc import Callable

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from monai_effsam.data.io import read_image, write_dicom_seg
from monai_effsam.targets import targets_of

highdicom = pytest.importorskip("highdicom")

CT = targets_of("ct")
OBLIQUE = [0.9210609941, 0.0, 0.3894183423, 0.0, 1.0, 0.0]


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


@pytest.fixture
def check_round_trip(some_mask) -> Callable[..., Dataset]:
    """A function: write a mask, read it back both ways, and give the object."""

    def check(image, out, targets=CT, values=(12, 17)):
        mask = some_mask(image, values)
        path = write_dicom_seg(image, mask, targets, out)
        assert path == out / f"{image.name}_seg.dcm"
        assert (frames_by_pydicom(path, image, targets) == mask).all()
        assert (frames_by_highdicom(path, image, targets) == mask).all()
        seg = pydicom.dcmread(path)
        indices = [
            tuple(np.atleast_1d(g.FrameContentSequence[0].DimensionIndexValues)) for g in groups_of(seg)
        ]
        assert len(set(indices)) == len(indices)
        check_conformance(seg)
        return seg

    return check


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


def test_a_single_slice_keeps_its_place(make_instance, tmp_path, check_round_trip):
    path = make_instance(
        "a.dcm", np.zeros((9, 7), np.int16), "CT", FrameOfReferenceUID="1.2.3.9", PixelSpacing=[0.75, 0.5],
        ImageOrientationPatient=OBLIQUE, ImagePositionPatient=[1.25, -3, 7], SliceThickness=2,
    )  # fmt: skip
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
def test_frames_of_a_series_lie_on_their_slices(
    make_series, tmp_path, heights, orientation, check_round_trip
):
    seg = check_round_trip(make_series(heights, orientation), tmp_path / "out")
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


def test_thickness_that_is_not_told_is_the_distance_of_the_slices(make_series, tmp_path, check_round_trip):
    seg = check_round_trip(make_series([0, 4, 8], SliceThickness=None), tmp_path / "out")
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 4


def test_thickness_that_nothing_tells_is_left_out(make_instance, tmp_path, some_mask):
    image = read_image(make_instance("a.dcm", np.zeros((9, 7), np.int16), "CT", FrameOfReferenceUID="1.2.3.9",
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
def test_frames_of_one_file_keep_their_places(make_instance, tmp_path, steps, check_round_trip):
    places = [(1, 2, step) for step in steps]
    image = read_image(make_instance("a.dcm", np.zeros((4, 9, 7), np.int16), "MR", **enhanced(places)))
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
def test_frames_without_places_of_their_own_are_numbered(
    make_instance, tmp_path, attributes, check_round_trip
):
    frames = np.random.default_rng(0).integers(0, 255, (4, 9, 7, 3), dtype=np.uint8)
    seg = check_round_trip(read_image(make_instance("a.dcm", frames, "US", **attributes)), tmp_path / "out")
    check_unplaced(seg)
    for group in groups_of(seg):
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert group.FrameContentSequence[0].InStackPositionNumber == number


def test_a_series_without_frame_of_reference_is_numbered(make_series, tmp_path, check_round_trip):
    check_unplaced(check_round_trip(make_series([0, 10, 20, 30], FrameOfReferenceUID=None), tmp_path / "out"))


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
def test_pictures_are_referred_to_pixel_for_pixel(
    make_instance, tmp_path, modality, shape, attributes, check_round_trip
):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    path = make_instance("a.dcm", pixels, modality, **attributes)
    seg = check_round_trip(read_image(path), tmp_path / "out")
    check_unplaced(seg)
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == pydicom.dcmread(path).SOPClassUID
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1.1"


@pytest.mark.data
@pytest.mark.parametrize("name", ["us_multiframe_ybr_jpeg", "dx_image", "ct_small", "mr_small", "mr_rle"])
def test_real_files_come_back(shared, tmp_path, name, check_round_trip):
    image = read_image(shared / "data" / "dicom" / f"{name}.dcm")
    seg = check_round_trip(image, tmp_path / "out")
    assert ("FrameOfReferenceUID" in seg) == (name[:2] in ("ct", "mr"))
    assert seg.LossyImageCompression == ("01" if name.startswith("us") else "00")


def test_lossy_compression_of_the_source_is_told_also_where_the_file_does_not(
    make_instance, tmp_path, check_round_trip
):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)
    path = make_instance("a.dcm", pixels, "US")
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    data.PixelData = encapsulate([cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 5])[1].tobytes()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    seg = check_round_trip(read_image(path), tmp_path / "out")
    assert (seg.LossyImageCompression, seg.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert seg.LossyImageCompressionRatio == pytest.approx(64 * 48 / path.stat().st_size, abs=0.01)


def test_names_in_any_alphabet_are_kept(make_series, tmp_path, check_round_trip):
    image = make_series(
        [0, 10], SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος", StudyDescription="ΚΟΙΛΙΑ"
    )
    seg = check_round_trip(image, tmp_path / "out")
    assert (str(seg.PatientName), seg.StudyDescription) == ("Διονυσιος", "ΚΟΙΛΙΑ")
    assert seg.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.filterwarnings("ignore:Invalid value")  # of the test, which writes them
def test_what_is_wrong_in_the_source_is_not_passed_on(make_series, tmp_path, check_round_trip):
    image = make_series(
        [0, 10], PatientSex="X", PatientBirthDate="1.1.1970", StudyTime="noon", PatientAge="060Y"
    )
    seg = check_round_trip(image, tmp_path / "out")
    assert (seg.PatientSex, seg.PatientBirthDate, seg.StudyTime, seg.PatientAge) == ("", "", "", "060Y")
