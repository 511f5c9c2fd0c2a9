# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A label as a viewer sent it, as a DICOM Segmentation of its images; of single colour pictures too."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from monai_effsam.data.io import Algorithm, Image, write_dicom_seg
from monai_effsam.labelling.learning.grid import label_on_grid
from monai_effsam.labelling.learning.labelled import label_values
from monai_effsam.targets import OBJECT, Target

__all__ = ["label_to_seg"]


def label_to_seg(image: Image, label: Path, info: Mapping[str, Any], targets: Sequence[Target]) -> bytes:
    """The content of a segmentation with a segment for each structure drawn.

    Its description tells when it was made, so that users tell it from an older one of the same images.

    Args:
        image: of kind "dicom".
        label: file, of any grid.
        info: what the client sent along: names of the values.
        targets: names and codes; a name that none of them has becomes an anatomical structure of that name.

    Returns:
        Empty for an empty label, which viewers refuse.

    Raises:
        DataError: the label does not fit the image, or the image cannot be referred to.
        MissingExtraError: highdicom is not installed.
    """
    mask, names = label_on_grid(label, image), label_values(info)
    found = [_target(int(v), names.get(int(v), f"segment_{v}"), image, targets) for v in np.unique(mask) if v]
    with tempfile.TemporaryDirectory() as folder:
        path = write_dicom_seg(
            image,
            mask,
            found,
            Path(folder),
            algorithm=Algorithm(prompted=True),
            description=f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        )
        return path.read_bytes() if path else b""


def _target(value: int, name: str, image: Image, targets: Sequence[Target]) -> Target:
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    named = [t for t in targets if t.name == plain]
    own = [t for t in named if t.modality == image.modality] or named or [replace(OBJECT, name=name)]
    return replace(own[0], value=value)
