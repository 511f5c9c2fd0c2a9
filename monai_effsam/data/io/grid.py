# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Volumes as slices and back: which axis is sliced, which way up a slice is shown, NIfTI masks.

Affines here map voxel indices to patient millimetres in RAS (towards right, anterior, superior), as NIfTI
has it; DICOM and NRRD count in LPS and are turned over at the door.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GridGeometry", "SliceView", "lps_to_ras", "nifti_bytes", "slice_axis", "slice_view", "spacing_of"]

_CLEARLY = 1.2
_FEWER = 3.0
# Slice axis (R, A or S) -> in-plane (axis, sign) of rows and columns: towards what the index grows.
# Axial: rows to posterior, columns to the patient's left; coronal: inferior, left; sagittal: inferior, posterior.
_SHOWN: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    2: ((1, -1), (0, -1)),
    1: ((2, -1), (0, -1)),
    0: ((2, -1), (1, -1)),
}


@dataclass(frozen=True)
class SliceView:
    """A reordering of three array axes to (slice, row, column), with flips; exactly undone.

    Args:
        order: array axes that become slice, row and column.
        flips: whether each of them is read backwards.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def slices(self, volume: NDArray[Any]) -> NDArray[Any]:
        """(X, Y, Z[, C]) as stored -> (N, H, W[, C]), a view."""
        rest = tuple(range(3, volume.ndim))
        return volume.transpose(*self.order, *rest)[self._steps()]

    def undo(self, slices: NDArray[Any]) -> NDArray[Any]:
        """(N, H, W[, C]) -> (X, Y, Z[, C]) as stored, a view; the inverse of `slices`."""
        back = tuple(int(i) for i in np.argsort(self.order))
        rest = tuple(range(3, slices.ndim))
        return slices[self._steps()].transpose(*back, *rest)

    def _steps(self) -> tuple[slice, slice, slice]:
        a, b, c = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return a, b, c


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Distance of neighbouring voxels along each array axis [mm]."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def slice_axis(shape: Sequence[int], spacing: Sequence[float], stated: int | None = None) -> int:
    """The array axis along which the volume was acquired.

    The one with clearly the largest spacing (1.2 times the next); else the one that the header states; else
    the one with a third of the samples of any other; else the last.
    """
    thick = int(np.argmax(spacing))
    others = [s for i, s in enumerate(spacing) if i != thick]
    if spacing[thick] > _CLEARLY * max(others):
        return thick
    if stated is not None:
        return stated
    few = int(np.argmin(shape))
    if shape[few] * _FEWER <= min(n for i, n in enumerate(shape) if i != few):
        return few
    return 2


def slice_view(shape: Sequence[int], affine: NDArray[np.float64], stated: int | None = None) -> SliceView:
    """How a volume is shown: slices across the acquisition axis, in the radiological way up.

    Each array axis counts as the patient axis that it is nearest to, so oblique volumes are not resampled.
    Axial slices show the patient's right on the left and anterior above; coronal ones right on the left and
    superior above; sagittal ones anterior on the left and superior above. Slices go towards R, A or S.

    Args:
        shape: (X, Y, Z).
        affine: (4, 4), array index -> RAS [mm].
        stated: slice axis by the header, if it names one.
    """
    axis = slice_axis(shape, spacing_of(affine), stated)
    towards = _nearest_axes(affine)
    plane = _SHOWN[towards[axis][0]]
    row, column = (next(i for i, t in enumerate(towards) if t[0] == want) for want, _ in plane)
    flips = (towards[axis][1] < 0, towards[row][1] != plane[0][1], towards[column][1] != plane[1][1])
    return SliceView(order=(axis, row, column), flips=flips)


def _nearest_axes(affine: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(RAS axis, sign) of each array axis; the three axes differ, also in degenerate affines."""
    import nibabel

    table = nibabel.orientations.io_orientation(affine)
    free = [axis for axis in range(3) if axis not in table[:3, 0]]
    return [(int(a), int(s)) if np.isfinite(a) else (free.pop(0), 1) for a, s in table[:3]]


def lps_to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) affine into LPS -> the same into RAS; its own inverse."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def nifti_bytes(data: NDArray[np.uint8], affine: NDArray[np.float64] | None, header: Any = None) -> bytes:
    """A compressed NIfTI file: of `header`'s own codes and affine where given, else with `affine` (RAS)."""
    import nibabel

    if header is None:
        image = nibabel.Nifti1Image(data, affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1, strip_shears=True)
    else:
        header = header.copy()
        header.extensions.clear()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0
        kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        image = kind(data, None, header)
    buffer = io.BytesIO()
    image.to_stream(buffer)
    return gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)


@dataclass(frozen=True, eq=False)
class GridGeometry:
    """A stack that has an affine but no NIfTI header: DICOM, NRRD, pages.

    Args:
        affine: (4, 4), index of the written array -> RAS [mm].
        view: how the array was cut into slices; None for (N, H, W) written as (W, H, N), as viewers expect.
        shape: of the written array, where it is not three-dimensional.
    """

    affine: NDArray[np.float64]
    view: SliceView | None = None
    shape: tuple[int, ...] | None = None

    @property
    def suffix(self) -> str:
        """Always a compressed NIfTI."""
        return ".nii.gz"

    def encode(self, mask: NDArray[np.uint8]) -> bytes:
        """NIfTI content from a mask (N, H, W) in reading order."""
        data = mask.transpose(2, 1, 0) if self.view is None else self.view.undo(mask)
        return nifti_bytes(np.asarray(data).reshape(self.shape or data.shape), self.affine)
