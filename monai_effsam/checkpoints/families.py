# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Promptable networks whose checkpoints are read here: the input that each wants, its licence, its published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monai_effsam.specs import ImageSpec

__all__ = ["FAMILIES", "OWN_FAMILY", "Family", "published_as"]

OWN_FAMILY = "effsam"
"""Name of the models of this package."""

_RGB_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_RGB_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
_ZEROS, _ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

_SAM = ImageSpec(1024, "longest", "uint8", _RGB_MEAN, _RGB_STD, interpolation="pillow", mask_rule="frame")
_MEDSAM = ImageSpec(1024, "stretch", "minmax", _ZEROS, _ONES, interpolation="spline", mask_rule="probability")
_LITE_MEDSAM = ImageSpec(
    256, "longest", "minmax", _ZEROS, _ONES, stride=4, interpolation="area", prompt_rule="truncated"
)


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints that were trained and are used alike.

    Args:
        title: as its authors write it.
        spec: the input that it wants; a file of another model size changes the size alone.
        licence: what the authors' repository states; weights that others tuned may have other terms.
    """

    title: str
    spec: ImageSpec
    licence: str


FAMILIES: Mapping[str, Family] = {
    "sam": Family("SAM", _SAM, "Apache-2.0 (facebookresearch/segment-anything)"),
    "medsam": Family("MedSAM", _MEDSAM, "Apache-2.0 (bowang-lab/MedSAM)"),
    "mobile_sam": Family("MobileSAM", _SAM, "Apache-2.0 (ChaoningZhang/MobileSAM)"),
    "tiny_sam": Family("TinySAM", _SAM, "Apache-2.0 (xinghaochen/TinySAM)"),
    "lite_medsam": Family("LiteMedSAM", _LITE_MEDSAM, "Apache-2.0 (bowang-lab/MedSAM)"),
}
"""Name -> family. Each resizes pixels, scales prompts and enlarges masks as its authors' own code does."""

_PUBLISHED: Mapping[str, str] = {
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912": "sam",
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622": "sam",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e": "sam",
    "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f": "mobile_sam",
    "01ec64d29a2fca3f0661936605ae66f8": "sam",
    "0b3195507c641ddb6910d2bb5adee89c": "sam",
    "4b8939a88964f0f4ff5f5b2642c598a6": "sam",
}
"""sha256 or MD5 -> family, of sam_vit_{b,l,h} and mobile_sam.pt; the others' authors publish no checksum."""


def published_as(*checksums: str) -> str | None:
    """The family of a published file with one of these checksums (sha256 or MD5); None for any other file."""
    return next((_PUBLISHED[c] for c in checksums if c in _PUBLISHED), None)
