# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Reading and writing: files to 8-bit slices, masks back to the exact grid of their file.

    find_inputs -> Source -> read_image -> Image -> write_mask, write_overlay, write_dicom_seg

Rasters, DICOM, NIfTI and NRRD; a new reader is one file and one line in `read.py`.
"""

from monai_effsam.data.io.dicom_concepts import Algorithm
from monai_effsam.data.io.dicom_seg import check_highdicom, write_dicom_seg
from monai_effsam.data.io.find import find_inputs
from monai_effsam.data.io.image import MAX_PIXELS, MAX_VALUES, Image, MaskGeometry, Source
from monai_effsam.data.io.intensity import CT_WINDOWS
from monai_effsam.data.io.label import read_label
from monai_effsam.data.io.overlay import draw_overlay, draw_sheet, write_overlay
from monai_effsam.data.io.read import read_image
from monai_effsam.data.io.write import atomic_path, output_paths, seg_path, write_bytes, write_mask

__all__ = [
    "CT_WINDOWS",
    "MAX_PIXELS",
    "MAX_VALUES",
    "Algorithm",
    "Image",
    "MaskGeometry",
    "Source",
    "atomic_path",
    "check_highdicom",
    "draw_overlay",
    "draw_sheet",
    "find_inputs",
    "output_paths",
    "read_image",
    "read_label",
    "seg_path",
    "write_bytes",
    "write_dicom_seg",
    "write_mask",
    "write_overlay",
]
