# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MONAI's dictionary form of the way of an image: file -> network input, mask logits -> label map -> stored grid.

Thin over `data.io` and `data.placement`; what belongs to one image travels beside its tensor as `Fitted`.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_effsam.data.io import Image, read_image, read_label
from monai_effsam.data.placement import apply_spec, label_map
from monai_effsam.errors import DataError, UsageError
from monai_effsam.specs import ANY_MODALITY, ImageSpec, Placement, spec_of
from monai_effsam.targets import MODALITIES, TARGETS, Target, check_modality, targets_of

__all__ = [
    "FitToSpecd",
    "Fitted",
    "ReadLabeld",
    "StoredGridd",
    "UndoSpecd",
    "first_choice",
    "fitted_of",
]

log = logging.getLogger(__name__)

Numbering = Literal["value", "row"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What the way back needs of one image.

    Args:
        image: as it was read.
        placement: how each slice lies in the model's frame.
        modality: name; empty where it is not known and need not be.
    """

    image: Image
    placement: Placement
    modality: str


class FitToSpecd(MapTransform):
    """An image file as its modality's encoder wants it; what the way back needs goes to `<key>_fitted`.

    Args:
        keys: each a path, a `Source` or an `Image`; becomes (3, S, S) float32, a stack of N slices (3, N, S, S).
        specs: an `ImageSpec` for each modality; with one under "", for all others, the modality need not be known.
        modality: of items that do not name theirs under "modality"; of a list, the first (a viewer's list of
            choices); None takes what the file itself says.
        ct_window: preset of `data.io.CT_WINDOWS`.
        carry: also leave `Fitted` in the tensor's `meta`, for callers that hand on the tensor alone (MONAI Label).
        allow_missing_keys: pass over items without a key.

    Raises:
        DataError: a file that cannot be read.
        UnknownNameError: a modality without a spec.
        UsageError: nothing tells the modality.
    """

    def __init__(
        self,
        keys: KeysCollection,
        specs: Mapping[str, ImageSpec],
        modality: str | Sequence[str] | None = None,
        *,
        ct_window: str = "soft_tissue",
        carry: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.carry = carry
        self.specs = dict(specs)
        self.modality = first_choice(modality)
        self.ct_window = ct_window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item with tensors for files, `<key>_fitted` and "modality"."""
        out = dict(data)
        for key in self.key_iterator(out):
            asked = first_choice(out.get("modality")) or self.modality
            image = out[key]
            if not isinstance(image, Image):
                source = Path(image) if isinstance(image, str) else image
                image = read_image(source, ct_window=self.ct_window, modality=asked)
            modality = asked or image.modality
            known = MODALITIES if ANY_MODALITY in self.specs else tuple(self.specs)
            if modality is not None:
                check_modality(modality, known)
            elif ANY_MODALITY not in self.specs:
                raise UsageError(f"{image.path}: modality is unknown, expected one of {', '.join(known)}.")
            if image.modality not in (None, modality):
                log.warning("%s: the file says %s, taken for %s", image.path, image.modality, modality)
            spec = spec_of(self.specs, modality)
            placed = [apply_spec(image.rgb(i), spec) for i in range(len(image))]
            tensor = torch.from_numpy(np.stack([array for array, _ in placed], axis=1))  # (3, N, S, S)
            tensor = tensor if image.is_volume or len(image) > 1 else tensor[:, 0]
            fitted = Fitted(image, placed[0][1], modality or "")
            out[key] = MetaTensor(tensor, meta={"fitted": fitted}) if self.carry else tensor
            out[f"{key}_fitted"] = fitted
            out["modality"] = modality or ""
        return out


class UndoSpecd(MapTransform):
    """Mask logits of one image as a label map of the source's size, in reading order.

    Args:
        keys: each (T_m, h, w), of a stack (T_m, N, h, w), over the model's frame; becomes (1, H, W) or (1, N, H, W).
        fitted: key of the image that went through `FitToSpecd`.
        targets: the network's target table.
        numbering: `value` writes the table's mask values, `row` 1 + the target's row in the table (which tells a
            liver in CT from one in MR).
        allow_missing_keys: pass over items without a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        fitted: str = "image",
        targets: Sequence[Target] = TARGETS,
        *,
        numbering: Numbering = "value",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fitted, self.targets, self.numbering = fitted, tuple(targets), numbering

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item with (1, [N,] H, W) uint8 tensors for logits."""
        out = dict(data)
        fitted = fitted_of(out, self.fitted)
        own = targets_of(fitted.modality, self.targets)
        numbers = _numbers(own, self.targets, self.numbering)
        numbered = [replace(target, value=number) for target, number in zip(own, numbers, strict=True)]
        for key in self.key_iterator(out):
            logits = cast(Tensor, out[key]).float().cpu().numpy()
            layers = logits[:, None] if logits.ndim == 3 else logits  # (T_m, N, h, w)
            shown = np.ones(len(own), np.bool_)
            maps = [
                label_map(layers[:, i], shown, numbered, fitted.placement) for i in range(layers.shape[1])
            ]
            out[key] = _as_item(np.stack(maps), flat=logits.ndim == 3).to(out[key].device)
        return out


class ReadLabeld(MapTransform):
    """A label file on the grid of its image, in the same order and numbering as `UndoSpecd` answers.

    Args:
        keys: each a path; becomes (1, H, W) or (1, N, H, W) uint8.
        fitted: key of the image that went through `FitToSpecd`.
        targets: the network's target table.
        numbering: as in `UndoSpecd`.
        allow_missing_keys: pass over items without a key.

    An item's "values" maps its mask values to target names; without it the values are the table's.

    Raises:
        DataError: unreadable, of another size than the image, or with a value that stands for no target.
    """

    def __init__(
        self,
        keys: KeysCollection,
        fitted: str = "image",
        targets: Sequence[Target] = TARGETS,
        *,
        numbering: Numbering = "value",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fitted, self.targets, self.numbering = fitted, tuple(targets), numbering

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item with label maps for files."""
        out = dict(data)
        fitted = fitted_of(out, self.fitted)
        own = targets_of(fitted.modality, self.targets)
        number = dict(zip((t.name for t in own), _numbers(own, self.targets, self.numbering), strict=True))
        names = out.pop("values", None) or {t.value: t.name for t in own}
        for key in self.key_iterator(out):
            mask = read_label(Path(out[key]), fitted.image)
            lookup = np.zeros(256, np.uint8)
            lookup[[int(value) for value in names]] = [number.get(name, 0) for name in names.values()]
            strange = set(np.unique(mask).tolist()) - {0, *(int(value) for value in names)}
            if strange:
                raise DataError(
                    f"{out[key]}: holds the value {min(strange)}, expected 0 or one of {sorted(names)}. Name it."
                )
            out[key] = _as_item(lookup[mask], flat=out[self.fitted].ndim == 3)
        return out


class StoredGridd(MapTransform):
    """A label map from reading order to the axes of the file, as MONAI's own readers would have laid it.

    (1, H, W) becomes (W, H) of a picture as it is stored, (1, N, H, W) becomes (X, Y, Z). The affine stands in
    `<fitted>_meta_dict`, and the map in reading order, (N, H, W) uint8, remains under `<key>_mask`.

    Args:
        keys: uint8 label maps of `UndoSpecd`.
        fitted: key of the image that went through `FitToSpecd`.
        allow_missing_keys: pass over items without a key.
    """

    def __init__(
        self, keys: KeysCollection, fitted: str = "image", *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fitted = fitted

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item, its maps on the stored grid."""
        out = dict(data)
        image = fitted_of(out, self.fitted).image
        for key in self.key_iterator(out):
            mask = cast(Tensor, out[key]).cpu().numpy().reshape(len(image), *image.size)
            stored, affine = _stored(image, mask)
            out[f"{key}_mask"] = mask
            out[key] = torch.from_numpy(np.ascontiguousarray(stored))
            meta = {"spatial_shape": np.asarray(stored.shape), "affine": affine, "original_affine": affine}
            out[f"{self.fitted}_meta_dict"] = meta
        return out


def first_choice(value: str | Sequence[str] | None) -> str | None:
    """The value itself, or the first of a list: viewers show a list as choices and send it unchosen."""
    if isinstance(value, str):
        return value or None
    return value[0] if value else None


def fitted_of(data: Mapping[Hashable, Any], key: str) -> Fitted:
    """What `FitToSpecd` left of an item's image; a `UsageError` if it was not there."""
    found = data.get(f"{key}_fitted")
    if not isinstance(found, Fitted):
        raise UsageError(
            f"item: '{key}_fitted' is {type(found).__name__}, expected Fitted. Put FitToSpecd first."
        )
    return found


def _numbers(own: Sequence[Target], table: Sequence[Target], numbering: Numbering) -> list[int]:
    return [1 + table.index(t) if numbering == "row" else t.value for t in own]


def _as_item(maps: npt.NDArray[np.uint8], *, flat: bool) -> Tensor:
    return torch.from_numpy(maps if flat else maps[None])


def _stored(
    image: Image, mask: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64] | None]:
    """Array on the grid of the file, and its RAS affine; read back from what `write_mask` would write."""
    content = image.geometry.encode(mask)
    if image.geometry.suffix == ".png":
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        return np.asarray(pixels, np.uint8).T, None
    import nibabel

    plain = gzip.decompress(content)
    second = 540 in (int.from_bytes(plain[:4], "little"), int.from_bytes(plain[:4], "big"))
    volume = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(plain)
    return np.asarray(volume.dataobj, np.uint8), np.asarray(volume.affine, np.float64)
