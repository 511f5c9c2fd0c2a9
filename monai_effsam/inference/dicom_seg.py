# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""DICOM Segmentations of a run: which inputs get one, and what is said of those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Algorithm, Image, Source, check_highdicom, seg_path, write_dicom_seg
from monai_effsam.errors import UsageError
from monai_effsam.targets import Target

__all__ = ["algorithm_of", "check_sources", "write_seg"]


def check_sources(sources: Sequence[Source]) -> None:
    """Refuse a request for DICOM Segmentations that no input can have, before anything is done.

    Raises:
        MissingExtraError: highdicom is not installed.
        UsageError: no input is DICOM.
    """
    check_highdicom()
    if all(source.kind != "dicom" for source in sources):
        raise UsageError("--dicom-seg: no input is DICOM, expected at least one. Leave the option out.")


def algorithm_of(card: Mapping[str, Any], *, prompted: bool) -> Algorithm:
    """Who outlined: the model, by its card where it has one; its weights are named by their hash."""
    own = Algorithm(prompted=prompted)
    digest = str(card.get("sha256") or "")[:12]
    version = str(card.get("version") or own.version) + (f" {digest}" if digest else "")
    name = f"{own.name} {card['name']}" if card.get("name") else own.name
    return Algorithm(name=name, version=version, prompted=prompted)


def write_seg(
    image: Image, mask: NDArray[np.uint8], targets: Sequence[Target], out: Path, algorithm: Algorithm
) -> tuple[Path | None, tuple[str, ...]]:
    """The file, or None and a note that says why there is none; what an earlier run left there goes.

    Args:
        image: any input.
        mask: its mask.
        targets: rows of its modality.
        out: the output folder.
        algorithm: who outlined.

    Raises:
        DataError: the input cannot be referred to, or the system refuses to write.
    """
    if image.kind != "dicom":
        return None, (f"no DICOM-SEG: the input is {image.kind}, not DICOM",)
    path = write_dicom_seg(image, mask, targets, out, algorithm=algorithm)
    if path is not None:
        return path, ()
    seg_path(image, out).unlink(missing_ok=True)
    return None, ("no DICOM-SEG: nothing was found",)
