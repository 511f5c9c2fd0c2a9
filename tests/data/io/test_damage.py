# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Damaged files: an image or one line, never another exception."""

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.data import get_testdata_file

from monai_effsam.data.io import MAX_PIXELS


def raster(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def dicom(name: str) -> bytes:
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


def nifti() -> bytes:
    return nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)).to_bytes()


WHOLE = {
    **{kind: raster(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")},
    "NIfTI": nifti(),
    "DICOM": dicom("MR_small.dcm"),
    "DICOM JPEG": dicom("SC_rgb_small_odd_jpeg.dcm"),
    "DICOM RLE": dicom("MR_small_RLE.dcm"),
}


@pytest.mark.parametrize("kind", WHOLE)
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_an_image_or_one_line(tmp_path, read_or_reason, kind, data):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content), 700) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / "a.bin"
    path.write_bytes(content[:keep])
    result = read_or_reason(path)
    if isinstance(result, str):
        assert result.startswith(str(path))
        assert "\n" not in result
    else:
        assert result.slices.dtype == np.uint8
        assert result.size[0] * result.size[1] <= MAX_PIXELS
