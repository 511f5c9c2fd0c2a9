# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM files: decoding, grey values, colour, what is refused, and where frames lie.

What becomes of each file that pydicom ships stands in `shipped_files.csv`.
"""

from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from monai_effsam.data.io import read_image, write_mask
from monai_effsam.errors import DataError

pytestmark = pytest.mark.usefixtures("core_decoders")

BARS = "SC_rgb_rle.dcm"


def shipped(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def grey(*values: float, kind: str = "i2") -> np.ndarray:
    return np.array(values, kind).reshape(1, -1)


def item(**attributes) -> Dataset:
    data = Dataset()
    for key, value in attributes.items():
        setattr(data, key, value)
    return data


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless"]
)
def test_every_lossless_encoding_shows_the_same(name):
    assert (read_image(shipped(f"{name}.dcm")).slices == read_image(shipped("MR_small.dcm")).slices).all()


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s4",
        "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm", "SC_ybr_full_422_uncompressed", "SC_rgb_rle_16bit",
        "SC_rgb_rle_32bit", "SC_rgb_gdcm_KY",
    ],
)  # fmt: skip
def test_every_colour_encoding_shows_the_same_bars(name):
    bars = read_image(shipped(BARS)).slices.astype(int)
    assert np.abs(read_image(shipped(f"{name}.dcm")).slices - bars).mean() < 3


@pytest.mark.parametrize(
    ("packed", "plain"),
    [("MR_small_jpeg_ls_lossless", "MR_small"), ("SC_rgb_jpeg_gdcm", BARS.removesuffix(".dcm"))],
    ids=["JPEG-LS", "JPEG lossless in RGB"],
)
def test_lossless_jpeg_is_decoded_by_itk(packed, plain):
    assert (read_image(shipped(f"{packed}.dcm")).slices == read_image(shipped(f"{plain}.dcm")).slices).all()


def test_what_itk_would_do_to_grey_values_is_done_once(tmp_path):
    for name in ("MR_small_jpeg_ls_lossless", "MR_small"):
        data = pydicom.dcmread(shipped(f"{name}.dcm"))
        data.PhotometricInterpretation = "MONOCHROME1"
        data.RescaleSlope, data.RescaleIntercept, data.WindowCenter, data.WindowWidth = 2, -700, 900, 2000
        data.save_as(tmp_path / f"{name}.dcm")
    packed, plain = (
        read_image(tmp_path / f"{n}.dcm").slices for n in ("MR_small_jpeg_ls_lossless", "MR_small")
    )
    assert (packed == plain).all()
    assert np.corrcoef(plain.ravel(), read_image(shipped("MR_small.dcm")).slices.ravel())[0, 1] < -0.9


def test_a_lossless_stream_cut_short_is_refused(tmp_path):
    data = pydicom.dcmread(shipped("SC_rgb_jpeg_gdcm.dcm"))
    stream = next(pydicom.encaps.generate_pixel_data_frame(data.PixelData, 1))
    data.PixelData = encapsulate([stream[: len(stream) // 2 * 2 - 200]])
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(
        DataError, match=r"a\.dcm: pixel data \(JPEG Lossless.* is damaged: frame 1 is cut short"
    ):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("name", ["SC_rgb_jpeg", "SC_jpeg_no_color_transform"])
def test_rgb_jpeg_without_a_proper_mark_is_not_transformed(name):
    assert (
        read_image(shipped(f"{name}.dcm")).slices == read_image(shipped("SC_rgb_jpeg_dcmd.dcm")).slices
    ).all()


def test_hounsfield_units_go_through_the_preset(make_dicom):
    path = make_dicom(
        "ct.dcm", grey(0, 864, 1064, 1264, 3000), "CT", RescaleSlope=1, RescaleIntercept=-1024,
        WindowCenter=5000, WindowWidth=3,
    )  # fmt: skip
    image = read_image(path)
    assert image.slices.ravel().tolist() == [0, 0, 128, 255, 255]
    assert image.modality == "ct"
    assert read_image(path, ct_window="lung").slices.ravel().tolist() == [55, 202, 236, 255, 255]


def test_ct_without_rescale_shows_what_the_file_proposes(make_dicom):
    path = make_dicom("ct.dcm", grey(0, 50, 150, 200), "CT", WindowCenter=[100.5, 7], WindowWidth=[101, 9])
    assert read_image(path).slices.ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        ("LINEAR", [0, 0, 129, 131, 255]),
        ("LINEAR_EXACT", [0, 0, 128, 130, 255]),
        ("SIGMOID", [5, 30, 128, 130, 226]),
    ],
)
def test_windows_follow_the_standard(make_dicom, function, shown):
    path = make_dicom("a.dcm", grey(0, 50, 100, 101, 150), "MR", WindowCenter=100, WindowWidth=100,
                      VOILUTFunction=function)  # fmt: skip
    assert np.abs(read_image(path).slices.ravel() - np.array(shown)).max() <= 1


def test_window_of_one_is_a_threshold(make_dicom):
    path = make_dicom("a.dcm", grey(0, 9, 10, 99), "MR", WindowCenter=10, WindowWidth=1)
    assert read_image(path).slices.ravel().tolist() == [0, 0, 255, 255]


def test_lookup_tables_are_applied(make_dicom):
    table = item(LUTDescriptor=[4, 0, 16], LUTData=np.array([0, 65535, 32768, 0], "<u2").tobytes())
    path = make_dicom("a.dcm", grey(0, 1, 2, 3, kind="u2"), "DX", VOILUTSequence=[table])
    assert read_image(path).slices.ravel().tolist() == [0, 255, 128, 0]


def test_without_a_window_percentiles_decide(make_dicom):
    path = make_dicom("a.dcm", np.arange(1000, 3000, dtype=np.int16).reshape(40, 50), "MR")
    shown = read_image(path).slices
    assert (shown[0, 0, 0], shown[0, -1, -1], len(np.unique(shown))) == (0, 255, 256)


def test_signed_values_keep_their_order(make_dicom):
    path = make_dicom("a.dcm", grey(-300, -100, 0, 200), "MR")
    assert (np.diff(read_image(path).slices.ravel().astype(int)) > 0).all()


def test_8_bit_without_a_window_stays(make_dicom):
    pixels = np.random.default_rng(0).integers(0, 200, (6, 8), dtype=np.uint8)
    assert (read_image(make_dicom("a.dcm", pixels, "US")).slices[0] == pixels).all()


def test_monochrome1_is_turned_bright_for_dark(make_dicom):
    pixels = np.array([[0, 100, 255]], np.uint8)
    path = make_dicom("a.dcm", pixels, "DX", PhotometricInterpretation="MONOCHROME1")
    assert read_image(path).slices.ravel().tolist() == [255, 155, 0]


def test_palette_colours_are_looked_up(make_dicom):
    tables = {}
    for name, values in (("Red", [0, 65535]), ("Green", [65535, 0]), ("Blue", [0, 32768])):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = np.array(values, "<u2").tobytes()
    path = make_dicom(
        "a.dcm", np.array([[0, 1]], np.uint8), "US", PhotometricInterpretation="PALETTE COLOR", **tables
    )
    assert read_image(path).slices[0, 0].tolist() == [[0, 255, 0], [255, 0, 128]]


def test_planes_of_colour_are_put_together(make_dicom):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).tobytes()
    path = make_dicom("a.dcm", pixels, "ES", PlanarConfiguration=1, PixelData=planes)
    image = read_image(path)
    assert (image.slices[0] == pixels).all()
    assert image.modality == "endoscopy"


def test_unknown_colours_are_refused(make_dicom):
    path = make_dicom("a.dcm", np.zeros((4, 6, 3), np.uint8), PhotometricInterpretation="HSV")
    with pytest.raises(DataError, match="colours are 'HSV', expected RGB, YBR or a palette"):
        read_image(path)


@pytest.mark.parametrize(
    ("attribute", "modality"),
    [("CT", "ct"), ("MR", "mr"), ("US", "ultrasound"), ("DX", "xray"), ("CR", "xray"), ("ES", "endoscopy"),
     ("OP", "fundus"), ("XC", "dermoscopy"), ("DMS", "dermoscopy"), ("OT", None), ("OPT", None), ("", None)],
)  # fmt: skip
def test_modality_is_guessed_where_it_can(make_dicom, attribute, modality):
    assert read_image(make_dicom("a.dcm", np.zeros((2, 2), np.uint8), attribute)).modality == modality


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({}, None),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": None}, None),
        ({"SequenceOfUltrasoundRegions": [
            item(RegionSpatialFormat=1, PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.02,
                 PhysicalDeltaY=-0.03)]}, (0.3, 0.2)),
    ],
    ids=["stated", "missing", "zero", "empty", "ultrasound"],
)  # fmt: skip
def test_spacing_is_that_of_the_body(make_dicom, attributes, spacing):
    assert (
        read_image(make_dicom("a.dcm", np.zeros((2, 2), np.uint8), "US", **attributes)).spacing_mm == spacing
    )


def test_spacing_at_the_detector_is_told(make_dicom):
    image = read_image(make_dicom("a.dcm", np.zeros((2, 2), np.uint8), "DX", ImagerPixelSpacing=[0.1, 0.1]))
    assert image.spacing_mm == (0.1, 0.1)
    assert image.notes == ("Spacing is that of the detector: sizes in mm are larger than in the body.",)


def test_a_mosaic_is_no_slice(make_dicom):
    path = make_dicom(
        "a.dcm", np.zeros((4, 4), np.uint16), "MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    )
    with pytest.raises(DataError, match=r"a\.dcm: DICOM image is a Siemens mosaic, .*dcm2niix"):
        read_image(path)


def test_missing_pixels_are_refused(make_dicom):
    path = make_dicom("a.dcm", np.zeros((2, 2), np.uint8))
    data = pydicom.dcmread(path)
    del data.PixelData
    data.save_as(path)
    with pytest.raises(DataError, match="has no pixel data, expected an image"):
        read_image(path)


def test_files_without_preamble_are_read(make_dicom):
    path = make_dicom("a.dcm", np.arange(6, dtype=np.uint8).reshape(2, 3))
    path.write_bytes(path.read_bytes()[132:])
    assert read_image(path).slices[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_one_frame_gets_a_png_of_its_size(make_dicom, tmp_path):
    image = read_image(make_dicom("1.2.840.113", np.zeros((5, 9), np.uint8)))
    mask = np.random.default_rng(0).integers(0, 25, (1, 5, 9), dtype=np.uint8)
    path = write_mask(image, mask, tmp_path / "out")
    assert path.name == "1.2.840.113_mask.png"
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == mask[0]).all()


def test_frames_in_time_are_no_volume(make_dicom, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 5, 9), dtype=np.uint8)
    image = read_image(make_dicom("a.dcm", frames, "US"))
    assert (image.slices == frames).all()
    assert (image.is_volume, image.slice_step_mm) == (False, None)
    mask = (frames > 99).astype(np.uint8)
    written = nibabel.load(write_mask(image, mask, tmp_path / "out"))
    assert (np.asarray(written.dataobj) == mask.transpose(2, 1, 0)).all()


def test_frames_in_space_carry_their_affine(make_dicom, tmp_path):
    frames = np.zeros((3, 4, 5), np.int16)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[2.0, 0.5])],
    )
    places = [item(PlanePositionSequence=[item(ImagePositionPatient=[1, 2, 3 + 4 * i])]) for i in range(3)]
    path = make_dicom("a.dcm", frames, "MR", SharedFunctionalGroupsSequence=[shared],
                      PerFrameFunctionalGroupsSequence=places)  # fmt: skip
    image = read_image(path)
    assert (image.is_volume, image.slice_step_mm, image.spacing_mm) == (True, 4.0, (2.0, 0.5))
    written = nibabel.load(write_mask(image, np.zeros((3, 4, 5), np.uint8), tmp_path))
    assert written.affine.tolist() == [[-0.5, 0, 0, -1], [0, -2, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]]
    shuffled = [places[1], places[0], places[2]]
    image = read_image(make_dicom("b.dcm", frames, "MR", SharedFunctionalGroupsSequence=[shared],
                                  PerFrameFunctionalGroupsSequence=shuffled))  # fmt: skip
    assert not image.is_volume
    assert "Frames are in file order" in image.notes[0]


def test_frames_that_cross_one_another_are_no_volume(make_dicom):
    """Three planes through one point, as a localizer has them, could pass for a stack by their positions."""
    planes = ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])
    groups = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 4 * i])],
             PlaneOrientationSequence=[item(ImageOrientationPatient=plane)])
        for i, plane in enumerate(planes)
    ]  # fmt: skip
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[2.0, 0.5])])
    path = make_dicom("a.dcm", np.zeros((3, 4, 5), np.int16), "MR", SharedFunctionalGroupsSequence=[shared],
                      PerFrameFunctionalGroupsSequence=groups)  # fmt: skip
    image = read_image(path)
    assert (image.is_volume, image.slice_step_mm, len(image)) == (False, None, 3)


def test_a_damaged_jpeg_frame_is_refused(make_dicom):
    stream = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    path = make_dicom("a.dcm", np.zeros((16, 16, 3), np.uint8), "US")
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    data.PixelData = encapsulate([stream[:20] + bytes(60)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    with pytest.raises(DataError, match=r"a\.dcm: pixel data \(JPEG Baseline.*is damaged"):
        read_image(path)


def test_too_many_pixels_are_refused_before_decoding(make_dicom):
    path = make_dicom("a.dcm", np.zeros((2, 2), np.uint8), NumberOfFrames=1)
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 20000
    data.save_as(path)
    with pytest.raises(DataError, match="20000x20000 pixels, expected at most"):
        read_image(path)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:The odd length pixel data")  # of the test's own look at the pixels
def test_real_files_are_read_right(shared):
    folder = shared / "data" / "dicom"
    assert read_image(folder / "us_multiframe_ybr_jpeg.dcm").slices.shape == (30, 240, 320, 3)
    chest = read_image(folder / "dx_image.dcm")
    assert chest.modality == "xray"
    stored = pydicom.dcmread(folder / "dx_image.dcm").pixel_array  # MONOCHROME1
    assert np.corrcoef(stored.ravel(), chest.slices.ravel())[0, 1] < -0.95
    with pytest.raises(DataError, match="Segmentation Storage"):
        read_image(folder / "seg_liver_1frame.dcm")
