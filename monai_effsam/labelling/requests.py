# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What 3D Slicer and OHIF send with an inference, parsed once, strictly.

Everything that an answer depends on is in the request: no click is remembered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_effsam.errors import UsageError
from monai_effsam.labelling.mask_file import EXTENSIONS

__all__ = ["Clicks", "InferenceRequest", "Voxel"]

Voxel = tuple[int, int, int]
_MOST_POINTS = 1000
_LARGEST = 2**31


@dataclass(frozen=True, slots=True)
class Clicks:
    """A user's prompt in indices of the stored array, x fastest; nothing in it has been checked against an image.

    Args:
        foreground: voxels inside the object.
        background: voxels outside of it.
        roi: (x0, x1, y0, y1, z0, z1), sorted: Slicer's pairs run backwards along axes that it turns over.
        slice: k of the slice that is looked at; None where the viewer does not say. It may be 0.
    """

    foreground: tuple[Voxel, ...] = ()
    background: tuple[Voxel, ...] = ()
    roi: tuple[float, float, float, float, float, float] | None = None
    slice: int | None = None

    @property
    def asks(self) -> bool:
        """Whether they say where the object is; background alone does not."""
        return bool(self.foreground) or self.roi is not None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request.

    Args:
        image: path that the store found for the image's id.
        modality: what the store knows the image to be.
        label: the segment that the user works on.
        clicks: his prompt.
        targets: names of the targets wanted; None for all.
        extension: ending of the mask file.
        compressed: whether an NRRD is packed.
        fixed_values: whether values are those of `/info/`, as OHIF reads them, and not 1..n of the classes found, as
            Slicer does.
    """

    image: Path
    modality: str | None = None
    label: str | None = None
    clicks: Clicks = Clicks()
    targets: tuple[str, ...] | None = None
    extension: str = ".nrrd"
    compressed: bool = False
    fixed_values: bool = False

    @classmethod
    def of(cls, request: Mapping[str, Any], labels: Mapping[str, int] | None = None) -> InferenceRequest:
        """From the dictionary that MONAI Label hands to a task; keys that mean nothing here are passed over.

        Args:
            request: with `image` a path.
            labels: name -> value as `/info/` tells, for clients that name targets by value.

        Raises:
            UsageError: a value of the wrong kind, in one line that names the key.
        """
        image = request.get("image")
        if not isinstance(image, str | Path) or not str(image):
            raise UsageError(f"image: is {_shown(image)}, expected the path of an image. Name one.")
        kind = request.get("result_dtype")
        if kind not in (None, "", "uint8"):
            raise UsageError(f"result_dtype: is {_shown(kind)}, expected uint8. Leave it out.")
        extension = request.get("result_extension") or EXTENSIONS[0]
        if extension not in EXTENSIONS:
            raise UsageError(
                f"result_extension: is {_shown(extension)}, expected one of {', '.join(EXTENSIONS)}."
            )
        clicks = Clicks(
            _points(request, "foreground"), _points(request, "background"), _roi(request), _slice(request)
        )
        return cls(
            image=Path(image),
            modality=_text(request, "modality"),
            label=_text(request, "label"),
            clicks=clicks,
            targets=_targets(request, labels or {}),
            extension=extension,
            compressed=bool(request.get("result_compress", False)),
            fixed_values=request.get("restore_label_idx") is False,
        )


def _shown(value: object) -> str:
    """A value in a message, short whatever it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(request: Mapping[str, Any], key: str) -> str | None:
    value = request.get(key)
    if value in (None, ""):
        return None
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise UsageError(f"{key}: is {_shown(value)}, expected a short text.")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{key}: holds {_shown(value)}, expected numbers.")
    if not -_LARGEST <= value <= _LARGEST:  # NaN is not either
        raise UsageError(f"{key}: holds {_shown(value)}, expected voxel indices.")
    return value


def _items(request: Mapping[str, Any], key: str, most: int) -> Sequence[Any]:
    value = request.get(key)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > most:
        raise UsageError(f"{key}: is {_shown(value)}, expected a list of at most {most}.")
    return value


def _points(request: Mapping[str, Any], key: str) -> tuple[Voxel, ...]:
    found = []
    for point in _items(request, key, _MOST_POINTS):
        if not isinstance(point, list | tuple) or len(point) not in (2, 3):
            raise UsageError(f"{key}: holds {_shown(point)}, expected points [i, j, k].")
        i, j, k = (round(_number(value, key)) for value in (*point, 0)[:3])
        found.append((i, j, k))
    return tuple(found)


def _roi(request: Mapping[str, Any]) -> tuple[float, float, float, float, float, float] | None:
    values = [_number(value, "roi") for value in _items(request, "roi", 6)]
    if not values:
        return None
    if len(values) != 6:
        raise UsageError(f"roi: holds {len(values)} numbers, expected six: x0, x1, y0, y1, z0, z1.")
    (x0, x1), (y0, y1), (z0, z1) = (sorted(values[start : start + 2]) for start in (0, 2, 4))
    return x0, x1, y0, y1, z0, z1


def _slice(request: Mapping[str, Any]) -> int | None:
    value = request.get("slice")
    return None if value is None else round(_number(value, "slice"))


def _targets(request: Mapping[str, Any], labels: Mapping[str, int]) -> tuple[str, ...] | None:
    """By name (`target`, a text or a list of them), or by value (`label_prompt`, as OHIF sends class prompts)."""
    chosen = request.get("target")
    if chosen:
        names = chosen if isinstance(chosen, list | tuple) else [chosen]
        if not all(isinstance(name, str) for name in names) or len(names) > 255:
            raise UsageError(f"target: is {_shown(chosen)}, expected the name of a target.")
        return tuple(dict.fromkeys(names))
    values = [_number(value, "label_prompt") for value in _items(request, "label_prompt", 255)]
    named = {value: name for name, value in labels.items()}
    unknown = [value for value in values if value not in named]
    if unknown:
        known = ", ".join(f"{name}={value}" for name, value in labels.items())
        raise UsageError(f"label_prompt: holds {unknown[0]:g}, expected values of {known}.")
    return tuple(named[int(value)] for value in values) or None
