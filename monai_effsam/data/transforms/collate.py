# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Batches of one item, whatever it holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from monai_effsam.errors import UsageError

__all__ = ["collate_one"]


def collate_one(items: Sequence[Mapping[Hashable, Any]]) -> dict[Hashable, Any]:
    """A batch of one item, since images differ in size and depth; what is no tensor is put in a list.

    Objects such as `Fitted` are wrapped in arrays without axes, which `decollate_batch` unwraps. The `meta` of tensors
    is left behind.

    Raises:
        UsageError: more than one item.
    """
    if len(items) != 1:
        raise UsageError(f"collate_one: {len(items)} items in a batch, expected 1. Set batch_size to 1.")
    plain = {k: v.as_tensor() if isinstance(v, MetaTensor) else v for k, v in items[0].items()}
    return {k: v[None] if isinstance(v, Tensor) else [_wrapped(v)] for k, v in plain.items()}


def _wrapped(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    wrapped = np.empty((), object)
    wrapped[()] = value
    return wrapped
