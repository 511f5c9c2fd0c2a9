# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TiC networks: the classifier, and its trunk as a feature pyramid."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from monai_effsam.errors import SpecError
from monai_effsam.networks.encoders.hybrid_tic_trunk import HybridTicTrunk
from monai_effsam.networks.encoders.tic_trunk import TicSize, TicTrunk

__all__ = ["TicClassifier", "tic_features"]


class TicClassifier(nn.Module):
    """Trunk, batch norm, mean over the last map, linear layer: an image of any size to logits.

    "TiC: Exploring Vision Transformer in Convolution", arXiv 2310.04134; which parts are ours: see `TicTrunk`.

    Args:
        num_classes: length of the answer.
        size: `nano`, `ti`, `s`, `b`, or a `TicSize`.
        in_channels: of the image.
        head_dropout: of the features before the linear layer, in training.
        stem: timm network under the blocks, see `HybridTicTrunk`; `size` is not read then. Empty for `TicTrunk`.
        trunk: further options of the trunk, such as kernel_size, shift, inter_pooling and dropout.

    Raises:
        SpecError: fewer than one class, or options that do not fit.
        UnknownNameError: no size of that name.
    """

    def __init__(
        self,
        num_classes: int,
        size: str | TicSize = "nano",
        in_channels: int = 3,
        *,
        head_dropout: float = 0.0,
        stem: str = "",
        **trunk: Any,
    ) -> None:
        """Build with PyTorch's default initialisation."""
        super().__init__()
        if num_classes < 1:
            raise SpecError(
                f"TicClassifier: num_classes is {num_classes}, expected at least 1. Count the classes."
            )
        self.trunk = HybridTicTrunk(stem, **trunk) if stem else TicTrunk(size, in_channels, **trunk)
        self.norm = nn.BatchNorm2d(self.trunk.channels[-1])
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(self.trunk.channels[-1], num_classes)

    def features(self, image: Tensor) -> Tensor:
        """(B, C_in, H, W), any H and W -> one vector an image, (B, C)."""
        return cast(Tensor, self.norm(self.trunk(image)[-1]).mean((2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C_in, H, W), any H and W -> logits (B, num_classes)."""
        return cast(Tensor, self.head(self.dropout(self.features(image))))


def tic_features(size: str | TicSize = "nano", in_channels: int = 3, **trunk: Any) -> TicTrunk:
    """The trunk alone: image to four maps at strides 4, 8, 16 and 32, for a decoder or a detector.

    Args:
        size: `nano`, `ti`, `s`, `b`, or a `TicSize`.
        in_channels: of the image.
        trunk: further options of `TicTrunk`.

    Raises:
        SpecError: options that do not fit.
        UnknownNameError: no size of that name.
    """
    return TicTrunk(size, in_channels, **trunk)
