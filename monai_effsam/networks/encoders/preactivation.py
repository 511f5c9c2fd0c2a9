# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A pre-activation ResNet as published ImageNet weights have it, with one map for a neck."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from monai_effsam.errors import SpecError
from monai_effsam.networks.foreign import import_timm

__all__ = ["PreActivationTrunk"]


class PreActivationTrunk(nn.Module):
    """Stem and first stages of a timm `ResNetV2`, with a norm behind the stem's convolution and one behind the last.

    "Identity Mappings in Deep Residual Networks", He et al., arXiv 1603.05027. A pre-activation stage ends in a raw
    sum; its norm is part of the network. timm's own `features_only` gives the sum, and its stem has no norm, which the
    weights of MXNet and of the ONNX model zoo have.

    Attributes:
        channels: of the map.
        stride: image pixels a step of it.

    Args:
        model: timm's name, such as `resnetv2_50`.
        stages: how many stages are kept; three end at stride 16.

    Raises:
        SpecError: no such network, or another number of stages.
    """

    def __init__(self, model: str = "resnetv2_50", stages: int = 3) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        timm = import_timm()
        whole = timm.create_model(model, pretrained=False, num_classes=0)
        if not hasattr(whole, "stages") or not hasattr(whole, "norm") or not 1 <= stages <= len(whole.stages):
            raise SpecError(
                f"PreActivationTrunk: '{model}' with {stages} stages is no pre-activation ResNet, expected a "
                "timm resnetv2 and 1 to 4 stages. Choose another trunk."
            )
        norm = timm.layers.BatchNormAct2d
        self.stride = int(whole.feature_info[stages]["reduction"])
        self.channels = int(whole.feature_info[stages]["num_chs"])
        stem = OrderedDict(
            conv=whole.stem.conv, norm=norm(whole.stem.conv.out_channels), pool=whole.stem.pool
        )
        self.stem = nn.Sequential(stem)
        self.stages = whole.stages[:stages]
        self.norm = norm(self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one map, (B, channels, H / stride, W / stride), as a list like timm's."""
        return [self.norm(self.stages(self.stem(image)))]
