# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Single operations that blocks are made of."""

from __future__ import annotations

from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["LayerNorm2d"]
