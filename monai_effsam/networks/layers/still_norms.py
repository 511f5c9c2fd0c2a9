# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""BatchNorm that keeps its statistics while everything else trains."""

from __future__ import annotations

from torch import nn

__all__ = ["hold_norms"]


def hold_norms(root: nn.Module) -> None:
    """Put every BatchNorm below a module in eval mode: batches of large pictures are too small for statistics.

    To be called at the end of an encoder's own `train`, which would set them to training again.
    """
    for module in root.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
