# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The JSON that comes with requests: what of it is passed on, and of what kind it must be.

Whatever is not on a list is dropped, as the stock clients send more than anybody reads. So a request cannot name a
path, another model, another image, a device or an address.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.settings import Limits

__all__ = ["config_parameters", "infer_parameters", "label_parameters", "read_object"]

_EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
_DEPTH = 6


def read_object(text: str, what: str, limits: Limits) -> dict[str, Any]:
    """The JSON object that a form field holds; an empty field holds an empty one.

    Raises:
        Refusal: 400, it is no JSON object; 413, it is too long.
    """
    if len(text) > limits.parameters:
        raise Refusal(413, f"{what}: is too long.")
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"{what}: is no JSON, expected an object.") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or _depth(value) > _DEPTH:
        raise Refusal(400, f"{what}: expected a flat JSON object.")
    return value


def infer_parameters(given: Mapping[str, Any], config: Mapping[str, Any], labels: Any) -> dict[str, Any]:
    """What of the parameters of an inference reaches the task.

    Args:
        given: by the client.
        config: of the task: name -> default.
        labels: that the task announces; points may come by label.

    Raises:
        Refusal: 400, a parameter of a wrong kind.
    """
    found = {}
    for name, check in _INFER.items():
        if given.get(name) is not None:
            if not check(given[name]):
                raise Refusal(400, f"params: '{name}' is not of the kind expected.")
            found[name] = given[name]
    for name in labels or ():  # a list of names, or a mapping by name
        if given.get(name) is not None and name not in found and _is_points(given[name]):
            found[str(name)] = given[name]
    return config_parameters(given, {k: v for k, v in config.items() if k not in _NEVER}) | found


def config_parameters(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parameters that a task, trainer or strategy offers in its config, of the kind of its default.

    Raises:
        Refusal: 400, a value of another kind, or none of the choices.
    """
    found = {}
    for name, default in config.items():
        if given.get(name) is None or name in _NEVER:
            continue
        value = given[name]
        if isinstance(default, list | tuple | dict) and not isinstance(value, list | dict):
            right = value in default
        elif isinstance(default, list | tuple):
            right = isinstance(value, list) and all(one in default for one in value)
        elif isinstance(default, dict):
            right = isinstance(value, dict) and set(value) <= set(default) and _depth(value) < _DEPTH
        else:
            right = _like(value, default)
        if not right:
            raise Refusal(400, f"params: '{name}' is not one of the values that it can have.")
        found[name] = value
    return found


def label_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a submitted label.

    Raises:
        Refusal: 400, a `label_info` of a wrong kind.
    """
    found: dict[str, Any] = {}
    if given.get("label_info") is not None:
        if not _is_label_info(given["label_info"]):
            raise Refusal(400, "params: 'label_info' expected a list of {name, idx}.")
        keys = ("name", "idx", "id", "label", "labelID", "color", "colour", "model_name")
        found["label_info"] = [{k: one[k] for k in keys if k in one} for one in given["label_info"]]
    for name in ("client_id", "model", "comment"):
        if isinstance(given.get(name), str):
            found[name] = given[name][:256]
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


def _like(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a default; Slicer's table sends numbers as they are typed."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return _is_number(value) and (isinstance(default, float) or float(value).is_integer())
    return isinstance(value, str) and _is_name(value, 128)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e9
    )


def _is_name(value: Any, most: int = 64) -> bool:
    return isinstance(value, str) and len(value) <= most and not any(c in value for c in "/\\\0\r\n")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 256 and all(map(_is_name, value))


def _is_numbers(value: Any, most: int = 1 << 14) -> bool:
    return isinstance(value, list) and len(value) <= most and all(map(_is_number, value))


def _is_points(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 4096
        and all(_is_numbers(p, 3) and len(p) >= 2 for p in value)
    )


def _is_label_info(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 256
        and all(isinstance(one, dict) and _is_name(one.get("name"), 128) and len(one) <= 16 for one in value)
    )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_INFER: Mapping[str, Callable[[Any], bool]] = {
    "foreground": _is_points,
    "background": _is_points,
    "points": _is_points,
    "point_labels": _is_numbers,
    "label_prompt": _is_numbers,
    "roi": lambda value: _is_numbers(value, 6),
    "slice": _is_number,
    "label": _is_name,
    "selected_label_name": _is_name,
    "target": lambda value: _is_name(value) or _is_names(value),
    "modality": _is_name,
    "label_info": _is_label_info,
    "reset_state": _is_bool,
    "save_label": _is_bool,
    "label_tag": lambda value: value == "original",
    "result_extension": lambda value: value in _EXTENSIONS,
    "result_dtype": lambda value: value in ("uint8", "uint16"),
    "result_compress": _is_bool,
    "restore_label_idx": _is_bool,
    "client_id": _is_name,
}
"""Parameters of inferences that are passed on, and what they must look like."""

_NEVER = frozenset(
    {
        "model", "image", "session", "session_id", "label_path", "image_path", "device", "description", "path", "name",
        "model_filename", "bundle_path", "train_ds", "val_ds", "tracking", "tracking_uri", "multi_gpu", "gpus",
        "output_dir", "logging", "timeout",
    }
)  # fmt: skip
"""Never passed on, even where a task offers it."""
