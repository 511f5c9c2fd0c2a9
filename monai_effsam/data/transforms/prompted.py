# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI's dictionary form of prompting: a box from a label, and the prompted object's logits as a label map."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_effsam.data.placement import mask_scores
from monai_effsam.data.transforms.fit import Numbering, fitted_of
from monai_effsam.errors import DataError
from monai_effsam.specs import ImageSpec, Prompts, spec_of
from monai_effsam.targets import TARGETS, Target, prompted_target

__all__ = ["BoxOfLabeld", "PromptedMaskd"]

_SCALE = 1024  # longest side of the picture at which jitter is told [px]


class BoxOfLabeld(MapTransform):
    """Leaves one target in a label map, and puts a box around it under "prompts", as a user would draw it.

    Args:
        keys: one label map, (1, H, W), of `ReadLabeld` with `numbering="row"`.
        fitted: key of the image that went through `FitToSpecd`.
        targets: the target table.
        jitter: how far each side of the box strays at most [px at a longest side of 1024].
        seed: of the straying; the same picture and target get the same box every time.
        allow_missing_keys: pass over items without a key.

    The item's "target" names what is left.

    Raises:
        DataError: the label does not hold the target.
    """

    def __init__(
        self,
        keys: KeysCollection,
        fitted: str = "image",
        targets: Sequence[Target] = TARGETS,
        *,
        jitter: float = 10.0,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fitted, self.targets, self.jitter, self.seed = fitted, tuple(targets), jitter, seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item with one target in the label map, and "prompts"."""
        out = dict(data)
        fitted = fitted_of(out, self.fitted)
        target = prompted_target([out["target"]], fitted.modality or None, self.targets)
        row = 1 + self.targets.index(target)
        for key in self.key_iterator(out):
            own = cast(Tensor, out[key]) == row
            if not own.any():
                raise DataError(f"{fitted.image.path}: its label holds no {target.name}, expected some.")
            out[key] = own.to(torch.uint8) * row
            out["prompts"] = Prompts(box=self._box(own[0].numpy()))
        return out

    def _box(self, drawn: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, float, float, float]:
        height, width = drawn.shape
        random = np.random.RandomState([self.seed, zlib.crc32(np.packbits(drawn).tobytes())])
        columns, rows = np.flatnonzero(drawn.any(0)), np.flatnonzero(drawn.any(1))
        tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
        moved = tight + random.uniform(-1, 1, 4) * self.jitter * max(height, width) / _SCALE
        x0, y0 = max(0.0, min(moved[0], tight[2] - 1)), max(0.0, min(moved[1], tight[3] - 1))
        return x0, y0, min(float(width), max(moved[2], x0 + 1)), min(float(height), max(moved[3], y0 + 1))


class PromptedMaskd(MapTransform):
    """Mask logits of one prompted object as a label map of the source's size, in reading order.

    Args:
        keys: each (1, h, w) over the model's frame; becomes (1, H, W) uint8.
        specs: of the model; their `mask_rule` decides how the mask grows to the size of the picture.
        fitted: key of the image that went through `FitToSpecd`.
        target: what the object is; None for an item's "target", or what `prompted_target` makes of the modality.
        targets: the target table.
        numbering: `value` writes the table's mask value, `row` 1 + the target's row.
        allow_missing_keys: pass over items without a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        specs: Mapping[str, ImageSpec],
        fitted: str = "image",
        target: str | None = None,
        targets: Sequence[Target] = TARGETS,
        *,
        numbering: Numbering = "value",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.specs, self.fitted, self.target = dict(specs), fitted, target
        self.targets, self.numbering = tuple(targets), numbering

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item with (1, H, W) uint8 tensors for logits."""
        out = dict(data)
        fitted = fitted_of(out, self.fitted)
        modality, name = fitted.modality or None, self.target or out.get("target")
        target = prompted_target([name] if name else None, modality, self.targets)
        number = target.value if self.numbering == "value" else 1 + self.targets.index(target)
        rule = spec_of(self.specs, modality).mask_rule
        for key in self.key_iterator(out):
            logits = cast(Tensor, out[key]).float().cpu().numpy()
            mask = mask_scores(logits, fitted.placement, rule) > 0
            out[key] = torch.from_numpy(mask.astype(np.uint8) * np.uint8(number)).to(out[key].device)
        return out
