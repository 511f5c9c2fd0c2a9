# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The slices that a training draws from and those that it calibrates on, as one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from monai_effsam.data.sets import Case
from monai_effsam.data.slices import LabelledSlice, hold_out, load_slices
from monai_effsam.data.transforms import first_choice
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, Target, check_modality, targets_of

__all__ = ["TrainingSlices", "as_case", "as_item"]


class TrainingSlices(Dataset[LabelledSlice]):
    """Labelled slices in memory; whole groups are held out to calibrate presence on.

    Args:
        data: cases, or MONAI items as `as_case` takes them.
        specs: an `ImageSpec` for each modality.
        targets: the target table.
        held_out: share of the groups that is not trained on.
        modality: of items that do not name theirs; of a list, the first.

    Raises:
        DataError: nothing to train on, or a label that cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Case | Mapping[str, Any]],
        specs: Mapping[str, ImageSpec],
        targets: Sequence[Target] = TARGETS,
        *,
        held_out: float = 0.0,
        modality: str | Sequence[str] | None = None,
    ) -> None:
        self.cases = [c if isinstance(c, Case) else as_case(c, first_choice(modality), targets) for c in data]
        self.specs, self.targets = specs, tuple(targets)
        self.trained, self.calibrated = hold_out(self.cases, held_out)
        self.slices = load_slices(self.trained, specs, targets, known_from=self.cases)
        if not self.slices:
            raise DataError(
                "TrainingSlices: no labelled images, expected at least one. Label some, or name the split."
            )

    @cached_property
    def held(self) -> list[LabelledSlice]:
        """The slices that were held out."""
        return load_slices(self.calibrated, self.specs, self.targets, known_from=self.cases)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> LabelledSlice:
        return self.slices[index]

    def summary(self) -> dict[str, dict[str, int]]:
        """For each set, how many cases were trained and calibrated on; for the model card."""
        names = dict.fromkeys(c.set_name for c in self.trained)
        return {
            n: {
                "trained": sum(c.set_name == n for c in self.trained),
                "calibrated": sum(c.set_name == n for c in self.calibrated),
            }
            for n in names
        }


def as_case(
    item: Mapping[str, Any], modality: str | None = None, targets: Sequence[Target] = TARGETS
) -> Case:
    """A MONAI item as a case.

    Args:
        item: "image" and "label" are files; "modality", "values" (mask value -> target name), "case" and "set" are
            optional. Without "values" the mask holds the values of the target table.
        modality: of items that do not name theirs.
        targets: the target table.

    Raises:
        DataError: no image, label or modality.
    """
    modality = item.get("modality") or modality
    if not modality or "image" not in item or "label" not in item:
        raise DataError(
            f"item {dict(item)}: lacks 'image', 'label' or 'modality', expected all three. Add it."
        )
    check_modality(modality, tuple(dict.fromkeys(t.modality for t in targets)))
    values = item.get("values") or {t.value: t.name for t in targets_of(modality, targets)}
    image = Path(item["image"])
    name = str(item.get("set") or modality)
    named = {int(value): str(target) for value, target in values.items()}
    return Case(
        image, Path(item["label"]), modality, named, str(item.get("case") or image.stem), "train", name
    )


def as_item(case: Case) -> dict[str, Any]:
    """A case as a MONAI item, the inverse of `as_case`; plain values only."""
    return {
        "image": str(case.image),
        "label": str(case.mask),
        "modality": case.modality,
        "values": dict(case.values),
        "case": case.group,
        "set": case.set_name,
    }
