# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pixels of DICOM data sets: decoding, modality values, windows, colour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError

from monai_effsam.data.io.dicom_header import DAMAGED, first_number, frame_count, functional
from monai_effsam.data.io.dicom_itk import ITK_DECODES, frame_streams, itk_frames
from monai_effsam.data.io.intensity import scale, to_uint8
from monai_effsam.errors import DataError

__all__ = ["Window", "ct_values", "decode", "grey_values", "inverted", "to_display", "to_rgb", "voi_window"]

_JPEG_8BIT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_NO_TRANSFORM = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_DECODERS = {"JPEG": "python-gdcm", "High-Throughput JPEG 2000": "pylibjpeg pylibjpeg-openjpeg"}


@dataclass(frozen=True)
class Window:
    """A VOI window as DICOM PS3.3 C.11.2.1 defines it.

    Args:
        centre: in modality values.
        width: in modality values.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Modality values to 0..255, same shape."""
        if self.function == "SIGMOID":
            flat = np.clip(-4 * (values.astype(np.float32) - self.centre) / self.width, -80, 80)
            return np.asarray(255 / (1 + np.exp(flat)) + 0.5, np.uint8)
        centre, width = self.centre, self.width
        if self.function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if width <= 0:
            return np.asarray(values > centre, np.uint8) * np.uint8(255)
        return scale(values, centre - width / 2, centre + width / 2)


def decode(path: Path, data: Any) -> NDArray[Any]:
    """Stored values of all frames: (N, H, W) or (N, H, W, 3).

    Raises:
        DataError: the compression needs a package that is missing, or the pixels are damaged.
    """
    syntax = _transfer_syntax(data)
    try:
        frames: NDArray[Any] | None = _jpeg_frames(data, syntax)
        if frames is None and syntax in ITK_DECODES and not _has_decoder(syntax):
            frames = itk_frames(data)
        if frames is None:
            if hasattr(data, "pixel_array_options"):  # pydicom 3, which would turn YBR to RGB by itself
                data.pixel_array_options(raw=True)
            frames = np.asarray(data.pixel_array)
    except (*DAMAGED, cv2.error, DecompressionBombError) as error:
        raise DataError(_complaint(path, syntax, error)) from error
    channels = (3,) if int(data.get("SamplesPerPixel") or 1) == 3 else ()
    return frames.reshape(frame_count(data), int(data.Rows), int(data.Columns), *channels)


def _transfer_syntax(data: Any) -> Any:
    """The transfer syntax; set from the encoding that was found where the file has no meta information."""
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    if not getattr(data, "file_meta", None):
        data.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in data.file_meta:
        little = uid.ImplicitVRLittleEndian if data.is_implicit_VR else uid.ExplicitVRLittleEndian
        data.file_meta.TransferSyntaxUID = little if data.is_little_endian else uid.ExplicitVRBigEndian
    return data.file_meta.TransferSyntaxUID


def _jpeg_frames(data: Any, syntax: Any) -> NDArray[np.uint8] | None:
    """Frames of 8-bit lossy JPEG in RGB or grey, decoded by OpenCV; None for any other compression.

    Where a stream does not say by itself what its colours are, the photometric interpretation does.
    """
    if syntax not in _JPEG_8BIT or int(data.BitsAllocated) != 8:
        return None
    count = frame_count(data)
    is_colour = int(data.get("SamplesPerPixel") or 1) == 3
    flag = (cv2.IMREAD_COLOR if is_colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    frames: list[NDArray[Any]] = []
    for stream in frame_streams(data):
        if is_colour and data.PhotometricInterpretation == "RGB" and _may_be_rgb(stream):
            stream = stream[:2] + _NO_TRANSFORM + stream[2:]
        pixels = cv2.imdecode(np.frombuffer(stream, np.uint8), flag)
        if pixels is None or pixels.shape[:2] != (data.Rows, data.Columns):
            raise ValueError(f"frame {len(frames) + 1} is damaged")
        frames.append(pixels[..., ::-1] if is_colour else pixels)
    if len(frames) != count:
        raise ValueError(f"file has {len(frames)} of {count} frames")
    return np.stack(frames)


def _may_be_rgb(stream: bytes) -> bool:
    """Whether a JPEG neither says what its colours are nor treats them differently, as only YCbCr does."""
    position, plain = 2, True
    while position + 4 <= len(stream) and stream[position + 1] != 0xDA:
        code, length = stream[position + 1], int.from_bytes(stream[position + 2 : position + 4], "big")
        body = stream[position + 4 : position + 2 + length]
        if body.startswith(b"JFIF\0") or (body.startswith(b"Adobe") and len(body) >= 12):
            return False
        if code in (0xC0, 0xC1):  # sampling and quantisation table of each component
            plain = len({body[7 + 3 * i : 9 + 3 * i] for i in range(body[5])}) == 1
        position += 2 + length
    return plain


def _complaint(path: Path, syntax: Any, error: BaseException) -> str:
    unknown = (
        isinstance(error, NotImplementedError) or "does not support" in str(error) or not _has_decoder(syntax)
    ) and syntax not in ITK_DECODES
    if syntax.is_compressed and unknown:
        packages = [package for start, package in _DECODERS.items() if syntax.name.startswith(start)]
        remedy = (
            f"Install one: pip install {packages[0]}"
            if packages
            else "Export it uncompressed or as JPEG 2000"
        )
        return f"{path}: pixel data is compressed as '{syntax.name}', which no installed package decodes. {remedy}."
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{path}: pixel data ({syntax.name}) is damaged: {reason}. Export it again."


def _has_decoder(syntax: Any) -> bool:
    """Whether an installed package knows the compression."""
    from pydicom import config

    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2
        pass
    else:
        try:
            return bool(get_decoder(syntax).is_available)
        except NotImplementedError:
            return False
    return any(h.is_available() and h.supports_transfer_syntax(syntax) for h in config.pixel_data_handlers)


def grey_values(data: Any, frames: NDArray[Any]) -> NDArray[Any]:
    """Modality values of stored values (N, H, W): rescaled, by lookup table, or as they are.

    The type stays where nothing changes, else it is float32.
    """
    if data.get("ModalityLUTSequence"):
        from pydicom.pixel_data_handlers.util import apply_modality_lut

        return np.asarray(apply_modality_lut(frames, data))
    pairs = [_rescale(data, i) for i in range(len(frames))]
    if all(pair in (None, (1.0, 0.0)) for pair in pairs):
        return frames
    slopes, intercepts = np.array([pair or (1.0, 0.0) for pair in pairs], np.float32).T
    result = frames.astype(np.float32)
    result *= slopes[:, None, None]
    result += intercepts[:, None, None]
    return result


def _rescale(data: Any, frame: int) -> tuple[float, float] | None:
    group = "PixelValueTransformationSequence"
    slope = first_number(functional(data, frame, group, "RescaleSlope"))
    intercept = first_number(functional(data, frame, group, "RescaleIntercept"))
    return None if slope is None or intercept is None else (slope, intercept)


def ct_values(data: Any, modality: str | None) -> bool:
    """Whether modality values are Hounsfield units: a CT with a rescale that does not say otherwise."""
    group = "PixelValueTransformationSequence"
    unit = str(functional(data, 0, group, "RescaleType") or "HU").strip().upper()
    return modality == "ct" and _rescale(data, 0) is not None and unit == "HU"


def voi_window(data: Any) -> Window | None:
    """The first window that the file proposes, None where there is none or it has no width."""
    group = "FrameVOILUTSequence"
    centre = first_number(functional(data, 0, group, "WindowCenter"))
    width = first_number(functional(data, 0, group, "WindowWidth"))
    if centre is None or width is None or width <= 0:
        return None
    function = str(functional(data, 0, group, "VOILUTFunction") or "LINEAR").strip().upper()
    return Window(centre, width, function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "LINEAR")


def inverted(data: Any) -> bool:
    """Whether low values are bright."""
    return str(data.get("PhotometricInterpretation") or "").strip() == "MONOCHROME1"


def to_display(data: Any, frames: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Stored grey values to 0..255 as the file proposes: window, lookup table, 8-bit as is, percentiles."""
    values = grey_values(data, frames)
    window = voi_window(data)
    if window is not None:
        return window(values), ()
    if data.get("VOILUTSequence") and values.dtype.kind in "iu":
        from pydicom.pixel_data_handlers.util import apply_voi

        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return scale(np.asarray(apply_voi(values, data, index=0)), 0, 2**bits - 1), ()
    return to_uint8(values, stretch=True)


def to_rgb(path: Path, data: Any, frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour or palette frames to (N, H, W, 3) uint8.

    Raises:
        DataError: a colour space that is not known here.
    """
    from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

    name = str(data.get("PhotometricInterpretation") or "").strip()
    if name == "PALETTE COLOR":
        colours = np.asarray(apply_color_lut(frames, data))
        return _eight_bits(colours[..., :3], 16 if colours.max(initial=0) > 255 else 8)
    frames = _eight_bits(frames, int(data.get("BitsStored") or data.BitsAllocated))
    syntax = data.file_meta.TransferSyntaxUID
    if name in ("YBR_FULL", "YBR_FULL_422") and not (syntax in _JPEG_8BIT and int(data.BitsAllocated) == 8):
        return np.stack([convert_color_space(frame, name, "RGB") for frame in frames])
    if name not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"):
        raise DataError(f"{path}: colours are '{name}', expected RGB, YBR or a palette. Export it again.")
    return frames


def _eight_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The upper 8 of `bits`."""
    return np.asarray(values if bits <= 8 else values >> (bits - 8)).astype(np.uint8)
