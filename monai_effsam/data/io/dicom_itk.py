# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Lossless JPEG and JPEG-LS of DICOM files, decoded by the GDCM that ITK brings: pydicom alone knows neither."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset

from monai_effsam.data.io.dicom_header import frame_count

__all__ = ["ITK_DECODES", "frame_streams", "itk_frames"]

ITK_DECODES = (
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81",
)  # fmt: skip
"""Transfer syntaxes: JPEG lossless (process 14, and its first-order prediction), JPEG-LS lossless and near-lossless."""

_END = b"\xff\xd9"
_NEAR_THE_END = 64


def itk_frames(data: Any) -> NDArray[Any]:
    """Stored values of all frames: (N, H, W) or (N, H, W, 3).

    ITK would rescale values, turn MONOCHROME1 over and convert colours; so it gets a copy without what makes it do
    that. A stream that is cut short would be filled up with grey, and is refused here.

    Args:
        data: a data set with pixel data in one of `ITK_DECODES`.

    Raises:
        ValueError: the pixel data has too few frames, or a frame is cut short.
        RuntimeError: ITK finds the stream damaged.
    """
    import itk

    count, channels = frame_count(data), int(data.get("SamplesPerPixel") or 1)
    streams = list(frame_streams(data))
    if len(streams) != count:
        raise ValueError(f"file has {len(streams)} of {count} frames")
    for number, stream in enumerate(streams, 1):
        if _END not in stream[-_NEAR_THE_END:]:
            raise ValueError(f"frame {number} is cut short")
    with tempfile.TemporaryDirectory(prefix="effsam-") as folder:
        path = Path(folder, "plain.dcm")
        _plain_copy(data, count, channels).save_as(path, write_like_original=False)
        values = np.asarray(itk.array_from_image(itk.imread(str(path), imageio=itk.GDCMImageIO.New())))
    shape = (count, int(data.Rows), int(data.Columns), *((3,) if channels == 3 else ()))
    return values.reshape(shape)


def frame_streams(data: Any) -> Iterator[bytes]:
    """The compressed stream of each frame."""
    from pydicom import encaps

    count = frame_count(data)
    if hasattr(encaps, "generate_frames"):
        return iter(encaps.generate_frames(data.PixelData, number_of_frames=count))
    return iter(encaps.generate_pixel_data_frame(data.PixelData, count))


def _plain_copy(data: Any, count: int, channels: int) -> FileDataset:
    """The same pixel data in a secondary capture that says nothing of how it is shown."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    copy = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    copy.is_little_endian, copy.is_implicit_VR = True, False
    copy.SOPClassUID, copy.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    copy.Rows, copy.Columns, copy.BitsAllocated = data.Rows, data.Columns, data.BitsAllocated
    copy.BitsStored = data.get("BitsStored") or data.BitsAllocated
    copy.HighBit = copy.BitsStored - 1
    copy.PixelRepresentation = data.get("PixelRepresentation") or 0
    copy.SamplesPerPixel, copy.NumberOfFrames = channels, count
    copy.PhotometricInterpretation = "RGB" if channels == 3 else "MONOCHROME2"
    if channels == 3:
        copy.PlanarConfiguration = 0
    copy.add(pydicom.DataElement("PixelData", "OB", data.PixelData))
    copy["PixelData"].is_undefined_length = True
    return copy
