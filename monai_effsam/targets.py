# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The target table: what can be outlined, in which modality, with which mask value and colour.

A structure keeps its value and colour in every modality (a liver is 17 in CT and in MR), so masks of
different studies can be read with one table. Codes are SNOMED CT concepts, for DICOM-SEG and viewers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from monai_effsam.errors import UnknownNameError, UsageError

__all__ = [
    "MODALITIES",
    "OBJECT",
    "TARGETS",
    "Target",
    "check_modality",
    "find_targets",
    "narrowed_targets",
    "own_target",
    "prompted_target",
    "targets_from_json",
    "targets_of",
]

MODALITIES: tuple[str, ...] = ("endoscopy", "ultrasound", "dermoscopy", "xray", "fundus", "ct", "mr")
"""Names of the modalities; a network stores its own list, so the order here may grow but not change."""


@dataclass(frozen=True, slots=True)
class Target:
    """A thing to outline.

    Args:
        name: short name, `snake_case`.
        modality: one of `MODALITIES`.
        value: value in a written mask, 1..255; 0 is "none".
        colour: display colour, 8-bit RGB.
        code: SNOMED CT concept id of the structure.
        meaning: the concept's English name.
        pieces: how many connected pieces it can have, filled, in one picture; 0 for any number.
        ellipse: whether its outline is an ellipse by definition.
    """

    name: str
    modality: str
    value: int
    colour: tuple[int, int, int]
    code: str
    meaning: str
    pieces: int = 0
    ellipse: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, the inverse of `targets_from_json`."""
        return asdict(self)


_STRUCTURES: dict[str, tuple[int, tuple[int, int, int], str, str]] = {
    "polyp": (1, (0, 158, 115), "41329004", "Polyp"),
    "skin_lesion": (2, (213, 94, 0), "95324001", "Skin lesion"),
    "breast_lesion": (3, (204, 121, 167), "89164003", "Breast lump"),
    "fetal_head": (4, (86, 180, 233), "54527006", "Fetal head"),
    "lungs": (5, (0, 114, 178), "39607008", "Lung"),
    "retinal_vessels": (6, (240, 228, 66), "59820001", "Blood vessel"),
    "right_ventricle": (7, (86, 180, 233), "53085002", "Right cardiac ventricle"),
    "myocardium": (8, (0, 158, 115), "74281007", "Myocardium"),
    "left_ventricle": (9, (213, 94, 0), "87878005", "Left cardiac ventricle"),
    "hippocampus_anterior": (10, (230, 159, 0), "5366008", "Hippocampus"),
    "hippocampus_posterior": (11, (86, 180, 233), "5366008", "Hippocampus"),
    "spleen": (12, (157, 108, 162), "78961009", "Spleen"),
    "kidney_right": (13, (185, 102, 83), "9846003", "Right kidney"),
    "kidney_left": (14, (150, 70, 60), "18639004", "Left kidney"),
    "gallbladder": (15, (139, 150, 98), "28231008", "Gallbladder"),
    "esophagus": (16, (211, 171, 143), "32849002", "Esophagus"),
    "liver": (17, (221, 130, 101), "10200004", "Liver"),
    "stomach": (18, (216, 132, 105), "69695003", "Stomach"),
    "aorta": (19, (224, 97, 76), "15825003", "Aorta"),
    "inferior_vena_cava": (20, (0, 112, 165), "64131007", "Inferior vena cava"),
    "portal_splenic_vein": (21, (0, 151, 206), "32764006", "Portal vein"),
    "pancreas": (22, (249, 180, 111), "15776009", "Pancreas"),
    "adrenal_gland_right": (23, (249, 186, 150), "29392005", "Right adrenal gland"),
    "adrenal_gland_left": (24, (244, 186, 150), "12003004", "Left adrenal gland"),
}
_PIECES = {"skin_lesion": 1, "fetal_head": 1, "lungs": 2}
_ABDOMEN = tuple(name for name, (value, *_) in _STRUCTURES.items() if value >= 12)
_SEEN_IN: dict[str, tuple[str, ...]] = {
    "endoscopy": ("polyp",),
    "ultrasound": ("breast_lesion", "fetal_head"),
    "dermoscopy": ("skin_lesion",),
    "xray": ("lungs",),
    "fundus": ("retinal_vessels",),
    "ct": _ABDOMEN,
    "mr": (
        "right_ventricle",
        "myocardium",
        "left_ventricle",
        "hippocampus_anterior",
        "hippocampus_posterior",
        *(name for name in _ABDOMEN if name != "esophagus"),
    ),
}

TARGETS: tuple[Target, ...] = tuple(
    Target(name, modality, *_STRUCTURES[name], _PIECES.get(name, 0), name == "fetal_head")
    for modality in MODALITIES
    for name in _SEEN_IN[modality]
)
"""Every target that the shipped model knows, modality by modality."""


OBJECT = Target("object", "", 1, (0, 158, 115), "123037004", "Anatomical Structure")
"""What a prompt outlines where nobody names a target."""


def check_modality(name: str, known: Sequence[str] = MODALITIES) -> str:
    """The name itself, if it is a known modality.

    Raises:
        UnknownNameError: it is not; the message lists those that are.
    """
    if name not in known:
        raise UnknownNameError("modality", name, known)
    return name


def targets_of(modality: str, table: Sequence[Target] = TARGETS) -> tuple[Target, ...]:
    """The targets of one modality, in table order.

    Raises:
        UnknownNameError: the modality is not in the table.
    """
    check_modality(modality, tuple(dict.fromkeys(t.modality for t in table)))
    return tuple(t for t in table if t.modality == modality)


def narrowed_targets(
    modality: str, names: Collection[str] | None, table: Sequence[Target] = TARGETS
) -> tuple[Target, ...]:
    """The targets of one modality that somebody cares for, in table order.

    Args:
        modality: of an image.
        names: of the targets wanted, of whatever modality; a modality of which none is named keeps all, as with None.
        table: of targets.

    Raises:
        UnknownNameError: the modality is not in the table.
    """
    every = targets_of(modality, table)
    return tuple(t for t in every if t.name in (names or ())) or every


def find_targets(
    names: Iterable[str], modality: str, table: Sequence[Target] = TARGETS
) -> tuple[Target, ...]:
    """The named targets of a modality, in the order asked.

    Raises:
        UnknownNameError: no target bears the name.
        UsageError: the target exists, but in another modality.
    """
    own = {t.name: t for t in targets_of(modality, table)}
    found = []
    for name in names:
        if name not in own:
            elsewhere = sorted({t.modality for t in table if t.name == name})
            if elsewhere:
                raise UsageError(
                    f"target '{name}' belongs to {', '.join(elsewhere)}, not to {modality}. "
                    f"Targets of {modality}: {', '.join(own)}."
                )
            raise UnknownNameError("target", name, own)
        found.append(own[name])
    return tuple(found)


def prompted_target(
    names: Sequence[str] | None, modality: str | None, table: Sequence[Target] = TARGETS
) -> Target:
    """What to call that which a promptable model outlines: the target named, the modality's only one, or `OBJECT`.

    Args:
        names: of the targets wanted, at most one; None or none for whatever is prompted.
        modality: of the picture; None where it is not known.
        table: names and mask values.

    Raises:
        UnknownNameError: no target bears the name.
        UsageError: several names, or a target of another modality.
    """
    own = [t for t in table if modality in (None, t.modality)]
    if not names:
        return own[0] if modality and len(own) == 1 else replace(OBJECT, modality=modality or "")
    if len(names) > 1:
        raise UsageError(
            f"prompts: {len(names)} targets are asked for, {', '.join(names)}, expected one. Prompt for one at a time."
        )
    if modality is not None and own:
        return find_targets(names, modality, table)[0]
    named = [t for t in table if t.name == names[0]]
    if not named:
        raise UnknownNameError("target", names[0], {t.name for t in table})
    return named[0]


def own_target(name: str, modality: str, table: Sequence[Target] = TARGETS) -> Target:
    """The table's target of that name and modality, or a new one with the next free value.

    Raises:
        UnknownNameError: the modality is unknown.
        UsageError: no value is left below 256.
    """
    check_modality(modality)
    named = [t for t in table if t.name == name]
    for target in named:
        if target.modality == modality:
            return target
    if named:  # known from another modality: same value, colour and concept
        return replace(named[0], modality=modality)
    value = 1 + max(t.value for t in table)
    if value > 255:
        raise UsageError(
            f"target '{name}': all mask values up to 255 are taken. Remove targets from the table."
        )
    colour = (value * 67 % 200 + 40, value * 131 % 200 + 40, value * 29 % 200 + 40)
    return Target(name, modality, value, colour, "49755003", "Morphologically abnormal structure")


def targets_from_json(rows: Iterable[dict[str, Any]]) -> tuple[Target, ...]:
    """Targets from dictionaries as `Target.to_json` makes them."""
    return tuple(Target(**{**row, "colour": tuple(row["colour"])}) for row in rows)
