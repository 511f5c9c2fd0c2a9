# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Who tells the modality of an image: whoever calls, else the file's DICOM attributes, else the router."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from monai_effsam.data.io import Image
from monai_effsam.errors import UsageError
from monai_effsam.inference.router import UNKNOWN, shipped_router

__all__ = ["ToldModality", "can_look", "looks_like", "routed_modality", "told_modality", "unknown_modality"]


class ToldModality(NamedTuple):
    """A modality and where it is from.

    Attributes:
        modality: name, or None where nobody told.
        source: `caller`, `dicom` or `router`; None where nobody told.
        notes: what the user should know of it, one sentence each.
    """

    modality: str | None
    source: str | None = None
    notes: tuple[str, ...] = ()


def told_modality(image: Image, asked: str | None) -> ToldModality:
    """What the caller says, else what the file's attributes do; the router is not asked."""
    if asked is None:
        return ToldModality(image.modality, "dicom" if image.modality else None)
    if image.modality in (None, asked):
        return ToldModality(asked, "caller")
    note = f"modality {asked} was given, the DICOM attributes tell {image.modality}"
    return ToldModality(asked, "caller", (note,))


def can_look() -> bool:
    """Whether a router ships, so that images may be told by their looks."""
    return shipped_router() is not None


def looks_like(image: Image) -> ToldModality:
    """What the router that ships makes of an image; no modality where it looks like none, or no router ships."""
    router = shipped_router()
    if router is None:
        return ToldModality(None)
    modality, probability = router.tell(image)
    if modality == UNKNOWN:
        return ToldModality(None, None, ("the picture looks like none that is known",))
    return ToldModality(modality, "router", (f"looks like {modality}, {probability:.2f}",))


def routed_modality(image: Image, where: str, known: Collection[str]) -> ToldModality:
    """What the router that ships makes of an image, if the model knows that.

    Args:
        image: read.
        where: names it in errors.
        known: modalities of the model.

    Raises:
        UsageError: it looks like none that the router knows, or that the model knows, or no router ships.
    """
    told = looks_like(image)
    if told.modality not in known:
        raise UsageError(unknown_modality(where, known, "; ".join(told.notes)))
    return told


def unknown_modality(where: str, known: Iterable[str], looks: str = "") -> str:
    """The sentence for an input whose modality nobody told.

    Args:
        where: names the input.
        known: modalities that there are.
        looks: what the router said of it.
    """
    found = f"; {looks}" if looks else ""
    return f"{where}: modality is unknown, expected one of {', '.join(known)}{found}. Give --modality."
