# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Files that appear whole or not at all, and masks on the grid of their image."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io.image import Image, Source
from monai_effsam.errors import DataError, ShapeError, UsageError

__all__ = ["atomic_path", "check_mask", "output_paths", "seg_path", "write_bytes", "write_mask"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its ending; becomes `path` if the block ends well, vanishes if not.

    The folder is made where it is missing. The name starts with a dot, so folder runs pass over what a
    killed process left.

    Raises:
        DataError: the system refuses to write (disk full, no permission, folder is a file).
    """
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix[:16]
    beside = path.with_name(f".part-{secrets.token_hex(6)}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{path}: cannot be written: {reason}. Check space and permissions of the folder."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, protected: tuple[Path, ...] = ()) -> Path:
    """Write `content` whole or not at all.

    Args:
        path: where.
        content: what.
        protected: files that must not be overwritten, the inputs.

    Raises:
        UsageError: `path` is one of `protected`.
        DataError: the system refuses to write.
    """
    target = path.resolve()
    if any(target == other.resolve() for other in protected):
        raise UsageError(
            f"{path}: is an input, expected another file to write to. Choose another output folder."
        )
    with atomic_path(path) as beside:
        beside.write_bytes(content)
    return path


def output_paths(source: Source | Image, out_dir: Path, *, dicom_seg: bool = False) -> tuple[Path, ...]:
    """Every file that may be written for an input: both kinds of mask, the overlay, the DICOM Segmentation."""
    paths = tuple(out_dir / f"{source.name}_{end}" for end in ("mask.png", "mask.nii.gz", "overlay.png"))
    return (*paths, seg_path(source, out_dir)) if dicom_seg and source.kind == "dicom" else paths


def seg_path(source: Source | Image, out_dir: Path) -> Path:
    """Where the DICOM Segmentation of an input is written."""
    return out_dir / f"{source.name}_seg.dcm"


def check_mask(image: Image, mask: NDArray[np.uint8], where: str) -> None:
    """Refuse a mask that is not on the grid of the slices.

    Raises:
        ShapeError: the mask has another shape or type than the image's slices ask for.
    """
    expected = (len(image), *image.size)
    if mask.shape != expected or mask.dtype != np.uint8:
        raise ShapeError(
            f"{where}: mask of {image.path.name} is {mask.dtype} {mask.shape}, expected uint8 {expected}. "
            f"Pass one value a pixel of image.slices."
        )


def write_mask(image: Image, mask: NDArray[np.uint8], out_dir: Path) -> Path:
    """Write the mask on the exact grid of the input, with the values as they are.

    NAME_mask.png for one picture (8-bit grey, the stored height and width, whatever the EXIF orientation
    says); NAME_mask.nii.gz for volumes, several frames or pages, and all NIfTI and NRRD input.

    Args:
        image: as `read_image` gave it.
        mask: (N, H, W) uint8, in the order and the way up of `image.slices`.
        out_dir: folder, made where it is missing.

    Returns:
        The file.

    Raises:
        ShapeError: the mask has another shape or type than the image's slices ask for.
        UsageError: the mask would overwrite the input.
        DataError: the system refuses to write.
    """
    check_mask(image, mask, "write_mask")
    path = out_dir / f"{image.name}_mask{image.geometry.suffix}"
    return write_bytes(path, image.geometry.encode(mask), image.sources or (image.path,))
