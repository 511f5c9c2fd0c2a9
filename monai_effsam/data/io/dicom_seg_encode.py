# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The content of a DICOM Segmentation: made by highdicom, mended where the standard allows more than it does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import datadict, uid

import monai_effsam
from monai_effsam.data.io import dicom_header as header
from monai_effsam.data.io.dicom_concepts import Algorithm, segment_description
from monai_effsam.data.io.dicom_sources import SourceImages, read_sources
from monai_effsam.data.io.image import Image
from monai_effsam.data.io.quiet import quiet
from monai_effsam.errors import DataError
from monai_effsam.targets import Target

__all__ = ["encode_seg"]

_BITS_A_BYTE = 8
_SERIES_OFFSET = 1000  # ours come after the study's own, by number


def encode_seg(
    image: Image, mask: NDArray[np.uint8], found: Sequence[Target], algorithm: Algorithm, description: str
) -> bytes:
    """The file's content: a segment for each target, a frame for each slice that shows it.

    Args:
        image: of kind "dicom".
        mask: (N, H, W), in the order of the image's slices.
        found: the targets of all values that the mask has, by value.
        algorithm: who outlined.
        description: of the series; the names of the targets follow it.

    Raises:
        DataError: a file of the input is gone or damaged, or cannot be referred to.
    """
    try:
        with quiet():  # values of the input are looked at, and complained about, again
            return _content(image, mask, found, algorithm, description)
    except DataError:
        raise
    except header.DAMAGED as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"{image.path}: DICOM-SEG cannot be made: {reason}. Do without it, or export the input again."
        ) from error


def _content(
    image: Image, mask: NDArray[np.uint8], found: Sequence[Target], algorithm: Algorithm, description: str
) -> bytes:
    from highdicom import UID
    from highdicom.seg import Segmentation

    shown = _shown(mask, found)
    sources = read_sources(image, frame_size=(1, len(found)))
    names = ", ".join(target.name for target in found)
    seg = Segmentation(
        source_images=sources.headers,
        pixel_array=shown,
        segmentation_type="BINARY",
        segment_descriptions=[segment_description(n, t, algorithm) for n, t in enumerate(found, 1)],
        series_instance_uid=UID(),
        series_number=sources.series_number + _SERIES_OFFSET,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="monai_effsam",
        manufacturer_model_name="monai_effsam",
        software_versions=monai_effsam.__version__,
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description=f"Outlined by {algorithm.name}"[:64],
        series_description=_at_most(f"{description}: {names}", 64),
        transfer_syntax_uid=uid.ExplicitVRLittleEndian,
    )
    seg.SpecificCharacterSet = "ISO_IR 192"
    seg.SeriesDate, seg.SeriesTime = seg.ContentDate, seg.ContentTime  # now; the study's date is another
    if not sources.has_thickness:
        del seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    if not sources.is_placed:
        _leave_space(seg)
    _name_true_classes(seg, sources)
    seg.Rows, seg.Columns = image.size
    seg.PixelData = _bits(seg, mask, [target.value for target in found], sources.frames)
    buffer = io.BytesIO()
    seg.save_as(buffer)
    return buffer.getvalue()


def _shown(mask: NDArray[np.uint8], found: Sequence[Target]) -> NDArray[np.uint8]:
    """Which slice shows which segment: (N, 1, S), number k at column k - 1 or 0.

    This is all that highdicom sees of the mask. It holds frames as bytes and copies them several times, 1.5 GB for
    150 slices of 512x512 with 13 targets; the bits are put in place afterwards.
    """
    rows = np.zeros((len(mask), 1, len(found)), np.uint8)
    for row, one in zip(rows, mask, strict=True):
        counts = np.bincount(one.ravel(), minlength=256)[[target.value for target in found]]
        row[0] = np.where(counts, np.arange(1, len(found) + 1), 0)
    return rows


def _bits(
    seg: Any, mask: NDArray[np.uint8], values: Sequence[int], frames: dict[tuple[str, int], int]
) -> bytes:
    """Pixel data: a bit a pixel, the first in the lowest bit, frames without a gap between them (PS3.5 8.1.1)."""
    parts, waiting = list[bytes](), list[NDArray[np.bool_]]()
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        index = frames[str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)]
        waiting.append(
            mask[index] == values[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        )
        if len(waiting) == _BITS_A_BYTE:  # so many frames always end with a byte
            parts.append(np.packbits(waiting, bitorder="little").tobytes())
            waiting.clear()
    if waiting:
        parts.append(np.packbits(waiting, bitorder="little").tobytes())
    content = b"".join(parts)
    return content + b"\0" * (len(content) % 2)


def _leave_space(seg: Any) -> None:
    """Take the places away that frames were lent, and number the frames as the source does.

    highdicom writes several frames only with a frame of reference (ImagingDataCommons/highdicom issue 284). The
    standard asks for none, nor for a spacing, where each frame refers to its source (PS3.3 A.51.3, A.51.5.1).
    """
    for key in ("FrameOfReferenceUID", "PositionReferenceIndicator", "DimensionOrganizationType"):
        if key in seg:
            delattr(seg, key)
    shared = seg.SharedFunctionalGroupsSequence[0]
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    index = seg.DimensionIndexSequence[1]
    index.DimensionIndexPointer = datadict.tag_for_keyword("InStackPositionNumber")
    index.FunctionalGroupPointer = datadict.tag_for_keyword("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame of the source"
    for group in seg.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        content.StackID = "1"
        content.InStackPositionNumber = int(group.PlanePositionSequence[0].ImagePositionPatient[2]) + 1
        del group.PlanePositionSequence


def _name_true_classes(seg: Any, sources: SourceImages) -> None:
    """Let every reference tell the SOP class of the instance that it refers to."""

    def rename(item: Any, element: Any) -> None:
        if element.keyword == "ReferencedSOPClassUID":
            element.value = sources.classes[str(item.ReferencedSOPInstanceUID)]

    seg.walk(rename)


def _at_most(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
