# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM Segmentation: a mask as an object that goes back to the archive and lies on its images."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.dicom_concepts import Algorithm
from monai_effsam.data.io.image import Image
from monai_effsam.data.io.write import check_mask, seg_path, write_bytes
from monai_effsam.errors import MissingExtraError, UsageError
from monai_effsam.targets import Target

__all__ = ["check_highdicom", "write_dicom_seg"]


def check_highdicom() -> None:
    """Refuse early what could not be written.

    Raises:
        MissingExtraError: highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise MissingExtraError("highdicom", "dicom")


def write_dicom_seg(
    image: Image,
    mask: NDArray[np.uint8],
    targets: Sequence[Target],
    out_dir: Path,
    *,
    algorithm: Algorithm | None = None,
    description: str = "Segmentation",
) -> Path | None:
    """Write the mask as a DICOM Segmentation, NAME_seg.dcm, that refers to the frames of the input.

    It has a segment for each target found, in the order of their mask values, and a frame for each slice that
    shows the target. Frames that have a place in space keep it. Others (ultrasound, endoscopy, X-ray) have no
    frame of reference: each names the source frame that it lies on, pixel for pixel (DICOM PS3.3 A.51.5.1), and is
    numbered as that is. Study and patient are those of the input; series and instance are new.

    Args:
        image: as `read_image` gave it, of kind "dicom"; its files must still be there.
        mask: (N, H, W) uint8, in the order of `image.slices`.
        targets: the table's rows of the image's modality; of a value that occurs twice the first counts.
        out_dir: folder, made where it is missing.
        algorithm: who outlined; the plug-in where it is not given.
        description: of the series; the names of the targets follow it, as far as there is room.

    Returns:
        The file; None, and no file, if the mask is empty, since viewers refuse a segmentation of nothing.

    Raises:
        MissingExtraError: highdicom is not installed.
        UsageError: the image is not DICOM, or the mask has a value that no target has.
        ShapeError: the mask has another shape or type than the image's slices ask for.
        DataError: the input cannot be referred to, or the system refuses to write.
    """
    check_highdicom()
    if image.kind != "dicom":
        raise UsageError(f"{image.path}: is {image.kind}, expected DICOM. Only that can have a DICOM-SEG.")
    check_mask(image, mask, "write_dicom_seg")
    found = _found(mask, targets)
    if not found:
        return None
    from monai_effsam.data.io.dicom_seg_encode import encode_seg  # brings pydicom, which few inputs need

    content = encode_seg(image, mask, found, algorithm or Algorithm(), description)
    return write_bytes(seg_path(image, out_dir), content, image.sources)


def _found(mask: NDArray[np.uint8], targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets that the mask shows, by value."""
    rows = {target.value: target for target in reversed(targets)}
    shown = np.zeros(256, bool)
    for one in mask:  # slice by slice: counting takes eight bytes a pixel
        shown |= np.bincount(one.ravel(), minlength=256) > 0
    values = np.flatnonzero(shown)
    unknown = [int(v) for v in values if v and int(v) not in rows]
    if unknown:
        known = ", ".join(map(str, sorted(rows)))
        raise UsageError(
            f"write_dicom_seg: mask has values {unknown}, expected those of the targets: {known}. "
            "Pass the table that the mask was made with."
        )
    return tuple(rows[int(v)] for v in values if v)
