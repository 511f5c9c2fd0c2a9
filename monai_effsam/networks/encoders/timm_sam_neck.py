# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's student encoder: a timm trunk, SAM's neck on its last map, enlarged to the grid of the embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks.necks import SamNeck
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.encoders.preactivation import PreActivationTrunk
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.layers.still_norms import hold_norms

__all__ = ["TimmSamNeckEncoder"]


@register_encoder("timm_sam_neck")
class TimmSamNeckEncoder(ImageEncoder):
    """The last map of a timm `features_only` trunk through SAM's neck; it has no modality controllers.

    "Efficient Knowledge Distillation of SAM for Medical Image Segmentation", arXiv 2501.16740, takes a ResNet-50 and
    tells its size, 26.4 M, but not its neck. With SAM's own neck it has 24,623,168 parameters (N1); with four 3x3
    convolutions instead of one 26,394,176 (N6), which rounds to the paper's number and is chosen for that.

    Running statistics of BatchNorm stay as they are unless `train_norms` is set: batches of 1024-px pictures are too
    small for them, and a frozen encoder must not drift.

    Args:
        modalities: 0; taken so that every encoder can be built alike.
        model: timm's name of the trunk.
        level: which of its maps is used, counted as timm's `out_indices`; -1 for the coarsest. 3 of `resnetv2_50` is
            the stride-16 map, for weights without the last stage.
        pre_activation: build a `resnetv2` trunk with the norms that its published ImageNet weights have; see
            `PreActivationTrunk`.
        stride: image pixels a step of the embedding; the neck's output is enlarged to it.
        refinements: 3x3 convolutions of the neck.
        embed_channels: C of the embedding.
        train_norms: let BatchNorm follow the batches in training.

    Raises:
        SpecError: modalities, or a map that is finer than the embedding or no multiple of it.
    """

    def __init__(
        self,
        modalities: int = 0,
        *,
        model: str = "resnet50",
        level: int = -1,
        pre_activation: bool = False,
        stride: int = 16,
        refinements: int = 1,
        embed_channels: int = 256,
        train_norms: bool = False,
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        if modalities:
            raise SpecError(
                f"TimmSamNeckEncoder: modalities is {modalities}, expected 0, since it has no controllers. "
                "Give modalities=0, or choose tiny_vit or timm."
            )
        trunk: Any
        if pre_activation:
            trunk = PreActivationTrunk(model, level if level > 0 else 4)
            coarse, channels = trunk.stride, trunk.channels
        else:
            trunk = import_timm().create_model(
                model, features_only=True, pretrained=False, out_indices=(level,)
            )
            coarse = int(trunk.feature_info.reduction()[-1])
            channels = int(trunk.feature_info.channels()[-1])
        if coarse < stride or coarse % stride:
            raise SpecError(
                f"TimmSamNeckEncoder: '{model}' has stride {coarse} at level {level}, expected a multiple of the "
                f"embedding's {stride}. Choose another level or stride."
            )
        self.trunk: nn.Module = trunk
        self.stride, self.size_divisor = stride, coarse
        self.embed_channels, self.train_norms = embed_channels, train_norms
        self.neck = SamNeck(channels, embed_channels, refinements)

    def train(self, mode: bool = True) -> TimmSamNeckEncoder:
        """As of any module, but BatchNorm keeps its statistics unless `train_norms` is set."""
        super().train(mode)
        if not self.train_norms:
            hold_norms(self.trunk)
        return self

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of `size_divisor`, and (B,), not read -> `Encoded`."""
        embedding = self.neck(self.trunk(image)[-1])
        factor = self.size_divisor // self.stride
        if factor > 1:
            embedding = F.interpolate(
                embedding, scale_factor=float(factor), mode="bilinear", align_corners=False
            )
        return Encoded(embedding)
