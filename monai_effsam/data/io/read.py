# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The one door in: any input to an `Image`."""

from __future__ import annotations

from pathlib import Path

from monai_effsam.data.io.find import find_inputs
from monai_effsam.data.io.image import Image, Source
from monai_effsam.data.io.intensity import window_range
from monai_effsam.data.io.sniff import content_kind
from monai_effsam.errors import DataError

__all__ = ["read_image"]


def read_image(
    source: Source | Path, *, ct_window: str = "soft_tissue", modality: str | None = None
) -> Image:
    """An input as 8-bit slices, with all that is needed to write a mask on its grid.

    Args:
        source: of `find_inputs`, or a file, or a folder that holds one series and nothing else.
        ct_window: preset of `CT_WINDOWS` for Hounsfield units.
        modality: what the caller knows it to be; decides how grey values of volumes are scaled.

    Raises:
        DataError: the content cannot be read or understood; one line that says why.
        UnknownNameError: no window bears the name.
    """
    window_range(ct_window)
    if isinstance(source, Path):
        source = _only_source(source)
    kind = source.kind or content_kind(source.paths[0])
    if kind == "nifti":
        from monai_effsam.data.io.nifti import read_nifti

        return read_nifti(source, ct_window, modality)
    if kind == "raster":
        from monai_effsam.data.io.raster import read_raster

        return read_raster(source)
    if kind == "dicom":
        from monai_effsam.data.io.dicom import read_dicom

        return read_dicom(source, ct_window, modality)
    if kind == "nrrd":
        from monai_effsam.data.io.nrrd import read_nrrd

        return read_nrrd(source, ct_window, modality)
    raise DataError(f"{source.path}: {_complaint(source.paths[0])}")


def _only_source(path: Path) -> Source:
    sources = find_inputs([path])
    if len(sources) > 1:
        names = ", ".join(s.name for s in sources[:3])
        raise DataError(
            f"{path}: folder holds {len(sources)} images ({names}, ...), expected one. Name a file of it."
        )
    return sources[0]


def _complaint(path: Path) -> str:
    """Why a file that looks like nothing is not read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as error:
        return f"file cannot be opened: {error.strerror}. Check its name and permissions."
    if size == 0:
        return "file is empty, expected an image. Copy or export it again."
    what = (
        "a compressed file without a NIfTI inside, or a damaged one"
        if head == b"\x1f\x8b"
        else "no known image"
    )
    return f"content is {what}, expected PNG, JPEG, TIFF, BMP, WebP, GIF, DICOM, NIfTI or NRRD. Export it as one."
