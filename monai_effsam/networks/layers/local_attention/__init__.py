# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Self-attention inside a sliding window: what MSA-Conv computes, in the forms that fit each shape and machine.

`attention.py` checks and chooses; `tiles.py` (matrix products on tiles with a halo) serves heads of many channels,
`offsets.py` (one window offset after the other) heads of few and dropout, `plain.py` graphs that are exported; on CUDA,
`triton_form.py` serves both.
"""

from monai_effsam.networks.layers.local_attention.attention import FORMS, local_attention
from monai_effsam.networks.layers.local_attention.window import BORDERS, AttentionWindow

__all__ = ["BORDERS", "FORMS", "AttentionWindow", "local_attention"]
