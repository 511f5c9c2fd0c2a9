# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Rasters: every depth, mode, page and orientation; masks on the stored grid."""

import struct
import zlib
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from monai_effsam.data.io import Source, read_image, write_mask
from monai_effsam.data.io.raster import PageGeometry
from monai_effsam.errors import DataError

FORMATS = {"PNG": ".png", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp", "GIF": ".gif", "JPEG": ".jpg"}
ORIENTED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def noise(*shape: int, high: int = 256, kind: str = "u1") -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(kind)


def random_mask(image) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 25, (len(image), *image.size), dtype=np.uint8)


def save_tiff(path: Path, pages: list[np.ndarray], **options) -> None:
    first, *rest = [Pillow.fromarray(page) for page in pages]
    first.save(path, "TIFF", save_all=bool(rest), append_images=rest, **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=["grey", "rgb"])
def test_lossless_pixels_arrive_as_they_are(tmp_path, kind, shape):
    pixels = noise(*shape)
    Pillow.fromarray(pixels).save(tmp_path / "a", kind)
    image = read_image(tmp_path / "a")
    assert (image.slices == pixels[None]).all()
    assert image.rgb(0).shape == (5, 7, 3)
    assert (image.kind, image.is_volume, image.spacing_mm, image.size) == ("raster", False, None, (5, 7))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_pixels_arrive_as_the_library_decodes_them(tmp_path, kind):
    flat = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    Pillow.fromarray(flat).save(tmp_path / "a", kind, quality=95)
    assert np.abs(read_image(tmp_path / "a").slices[0].astype(int) - flat).max() <= 4


@pytest.mark.parametrize(("kind", "ending"), FORMATS.items())
def test_content_decides_and_not_the_ending(tmp_path, kind, ending):
    wrong = ".png" if ending != ".png" else ".jpg"
    Pillow.fromarray(noise(4, 6)).save(tmp_path / f"a{wrong}", kind)
    assert read_image(tmp_path / f"a{wrong}").size == (4, 6)


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = noise(9, 5, high=2).astype(bool)
    Pillow.fromarray(bits).save(tmp_path / "a.png")
    Pillow.fromarray(bits).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.png").slices[0] == bits * 255).all()
    assert (read_image(tmp_path / "a.tif").slices[0] == bits * 255).all()


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_and_not_cut(tmp_path, ending, channels):
    ramp = np.linspace(1000, 1255 + 1000, 40 * 50).astype(np.uint16).reshape(40, 50)
    pixels = np.repeat(ramp[..., None], channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 65535
    cv2.imwrite(str(tmp_path / f"a{ending}"), pixels.squeeze())
    slices = read_image(tmp_path / f"a{ending}").slices[0]
    assert (slices.min(), slices.max()) == (0, 255)
    assert len(np.unique(slices)) == 256
    assert slices.ndim == (2 if channels == 1 else 3)


def test_16_bit_in_the_range_of_8_stays(tmp_path):
    pixels = noise(5, 7, high=200, kind="u2")
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert (read_image(tmp_path / "a.png").slices[0] == pixels).all()


def test_deep_colour_keeps_its_channel_order(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint16)
    pixels[..., 0] = 60000
    pixels[0, 0] = 0
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    assert tuple(read_image(tmp_path / "a.png").rgb(0)[2, 2]) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_float_is_scaled(tmp_path, kind):
    cv2.imwrite(str(tmp_path / "a.tif"), np.linspace(-3, 1, 1000).reshape(20, 50).astype(kind))
    slices = read_image(tmp_path / "a.tif").slices
    assert (slices[0, 0, 0], slices[0, -1, -1]) == (0, 255)


def test_non_finite_pixels_are_replaced_and_told(tmp_path):
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    values[0, :3] = np.nan, np.inf, -np.inf
    save_tiff(tmp_path / "a.tif", [values])
    image = read_image(tmp_path / "a.tif")
    assert image.slices[0, 0, :3].tolist() == [0, 255, 0]
    assert image.notes == ("3 NaN or infinite values were replaced.",)


def test_all_nan_is_refused(tmp_path):
    save_tiff(tmp_path / "a.tif", [np.full((3, 4), np.nan, np.float32)])
    with pytest.raises(DataError, match=r"a\.tif: pixel values are all NaN"):
        read_image(tmp_path / "a.tif")


def test_all_black_is_an_image(tmp_path):
    Pillow.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    save_tiff(tmp_path / "a.tif", [np.full((4, 4), 7.5, np.float32)])
    assert read_image(tmp_path / "a.png").slices.max() == 0
    assert read_image(tmp_path / "a.tif").slices.shape == (1, 4, 4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_opaque_alpha_is_dropped(tmp_path, kind):
    colour = noise(6, 5, 3)
    rgba = np.dstack([colour, np.full((6, 5), 255, np.uint8)])
    options = {"lossless": True} if kind == "WEBP" else {}
    Pillow.fromarray(rgba).save(tmp_path / "a", kind, **options)
    assert (read_image(tmp_path / "a").slices[0] == colour).all()


def test_half_transparent_pixels_lie_over_black(tmp_path):
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[..., 3] = [[255, 0], [51, 255]]
    Pillow.fromarray(rgba).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").slices[0, ..., 0].tolist() == [[200, 0], [40, 200]]


def test_wholly_transparent_pixels_are_shown(tmp_path):
    Pillow.fromarray(np.dstack([noise(3, 3, 3), np.zeros((3, 3), np.uint8)])).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.slices[0] == noise(3, 3, 3)).all()
    assert image.notes == ("Picture is fully transparent: transparency was ignored.",)


def test_grey_with_alpha_stays_grey(tmp_path):
    Pillow.fromarray(np.dstack([noise(3, 4), np.full((3, 4), 255, np.uint8)])).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png").slices[0] == noise(3, 4)).all()


def test_palette_colours_are_looked_up(tmp_path):
    picture = Pillow.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "L").convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        picture.save(tmp_path / name)
        found = read_image(tmp_path / name).slices[0].reshape(-1, 3).tolist()
        assert found == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], name


def test_cmyk_is_shown_in_rgb(tmp_path):
    cmyk = Pillow.new("CMYK", (16, 16), (0, 255, 255, 0))
    cmyk.save(tmp_path / "a.jpg", quality=95)
    cmyk.save(tmp_path / "a.tif")
    for name in ("a.jpg", "a.tif"):
        red, green, blue = read_image(tmp_path / name).rgb(0)[8, 8].tolist()
        assert (red > 230, green < 40, blue < 60) == (True, True, True), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_turns_the_picture_and_not_the_mask(tmp_path, kind, orientation):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = 250
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(stored).save(tmp_path / "a", kind, exif=exif)
    image = read_image(tmp_path / "a")
    upright = ORIENTED[orientation](stored)
    assert image.slices[0].shape == upright.shape
    assert np.abs(image.slices[0].astype(int) - upright).mean() < 8
    mask = (image.slices[..., 0] > 128).astype(np.uint8) * 7
    written = cv2.imread(str(write_mask(image, mask, tmp_path / "out")), cv2.IMREAD_UNCHANGED)
    assert written.shape == (16, 32)
    assert (written == (stored[..., 0] > 128) * 7).all()


def deep_tiff(pixels: np.ndarray, orientation: int) -> bytes:
    """An uncompressed TIFF of (h, w, 3) uint16, which Pillow does not write."""
    height, width, _ = pixels.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 16), (274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, height)]
    tags += [(279, 4, 1, pixels.nbytes), (284, 3, 1, 1)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    head = struct.pack("<2sHI3HH", b"II", 42, 16 + pixels.nbytes, 16, 16, 16, 0)
    return head + pixels.astype("<u2").tobytes() + directory


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colour_tiff_is_turned_once(tmp_path, orientation):
    stored = noise(6, 9, 3, high=60000, kind="u2")
    stored[0, 0], stored[0, 1] = 0, 60000
    (tmp_path / "a.tif").write_bytes(deep_tiff(stored, orientation))
    image = read_image(tmp_path / "a.tif")
    expected = ORIENTED[orientation](stored) / 60000 * 255
    assert np.abs(image.slices[0] - expected).max() < 5
    mask = random_mask(image)
    written = cv2.imread(str(write_mask(image, mask, tmp_path)), cv2.IMREAD_UNCHANGED)
    assert (ORIENTED[orientation](written) == mask[0]).all()


@pytest.mark.parametrize("orientation", range(9))
@given(shape=st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=15)
def test_turning_is_undone_exactly(orientation, shape):
    geometry = PageGeometry(orientation)
    pages = np.arange(np.prod(shape)).reshape(shape)
    assert (geometry.stored(geometry.upright(pages)) == pages).all()


def test_every_page_of_a_tiff_is_a_slice(tmp_path):
    pages = [noise(4, 6) // (i + 1) for i in range(3)]
    save_tiff(tmp_path / "a.tif", pages)
    image = read_image(tmp_path / "a.tif")
    assert (image.slices == np.stack(pages)).all()
    assert not image.is_volume
    mask = random_mask(image)
    written = nibabel.load(write_mask(image, mask, tmp_path / "out"))
    assert written.get_data_dtype() == np.uint8
    assert (np.asarray(written.dataobj) == mask.transpose(2, 1, 0)).all()


def test_every_frame_of_an_animation_is_a_slice(tmp_path):
    frames = [Pillow.new("RGB", (8, 5), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        image = read_image(tmp_path / name)
        assert image.slices.shape == (3, 5, 8, 3), name
        assert image.slices[:, 2, 2].argmax(axis=1).tolist() == [0, 1, 2], name


def test_16_bit_pages_are_scaled_together(tmp_path):
    save_tiff(tmp_path / "a.tif", [np.full((4, 4), v, np.uint16) for v in (0, 1000, 2000)])
    assert read_image(tmp_path / "a.tif").slices[:, 0, 0].tolist() == [0, 128, 255]


def test_pages_of_different_size_are_refused(tmp_path):
    save_tiff(tmp_path / "a.tif", [noise(4, 6), noise(5, 6)])
    with pytest.raises(
        DataError, match=r"pages differ in size \(4x6, 5x6\), expected one size for all. Split"
    ):
        read_image(tmp_path / "a.tif")


def test_pages_that_the_decoder_does_not_reach_are_missed(tmp_path, monkeypatch):
    save_tiff(tmp_path / "a.tif", [noise(4, 6), noise(4, 6)])
    monkeypatch.setattr("monai_effsam.data.io.raster_decode._tiff_pages", lambda _: [(4, 6, 1)] * 3)
    with pytest.raises(DataError, match="file has 2 whole pages of 3: it is truncated"):
        read_image(tmp_path / "a.tif")


def test_auxiliary_pictures_of_an_mpo_are_told(tmp_path):
    first, second = Pillow.new("RGB", (16, 8)), Pillow.new("RGB", (4, 2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    image = read_image(tmp_path / "a.jpg")
    assert image.slices.shape == (1, 8, 16, 3)
    assert image.notes == ("1 auxiliary pictures of the file (previews, other views) were left out.",)


@pytest.mark.parametrize(("width", "height"), [(20000, 20000), (9300, 9300)])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, width, height):
    header = Pillow.new("1", (1, 1))
    header.save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="expected at most 67108864 "):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("kind", "ending"), FORMATS.items())
def test_a_truncated_picture_is_refused_with_a_reason(tmp_path, kind, ending):
    path = tmp_path / f"a{ending}"
    Pillow.fromarray(noise(64, 64, 3)).save(path, kind)
    path.write_bytes(path.read_bytes()[:-400] if kind != "TIFF" else path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"a{ending}: .*(truncated|damaged|cannot be read)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_animation_is_refused(tmp_path):
    frames = [Pillow.fromarray(noise(16, 16) // (i + 1)) for i in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    save_tiff(tmp_path / "a.tif", [np.asarray(frame) for frame in frames])
    for name in ("a.gif", "a.tif"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(DataError, match="truncated"):
            read_image(tmp_path / name)


@given(
    height=st.one_of(st.integers(1, 3), st.integers(1, 5000)),
    width=st.integers(1, 3),
    swap=st.booleans(),
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["u1", "u2", "f4", "bool", "rgb"]),
)
@settings(max_examples=60)
def test_mask_of_any_size_and_depth_lies_on_the_stored_grid(
    tmp_path_factory, height, width, swap, orientation, kind
):
    folder = tmp_path_factory.mktemp("grid")
    shape = (width, height) if swap else (height, width)
    pixels = noise(*shape, 3) if kind == "rgb" else noise(*shape).astype(kind)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(pixels).save(folder / "a.tif", exif=exif)
    image = read_image(Source((folder / "a.tif",), "raster", "a"))
    mask = random_mask(image)
    path = write_mask(image, mask, folder)
    written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert path.name == "a_mask.png"
    assert written.dtype == np.uint8
    assert written.shape == shape
    assert (image.geometry.upright(written[None]) == mask).all()
