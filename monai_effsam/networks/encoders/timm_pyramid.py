# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Any timm trunk as a promptable student's encoder: its coarse maps meet in a small pyramid that ends as SAM's neck."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d
from monai_effsam.networks.layers.still_norms import hold_norms

__all__ = ["TimmPyramidEncoder"]

_COARSEST = 32


@register_encoder("timm_pyramid")
class TimmPyramidEncoder(ImageEncoder):
    """Maps of a timm `features_only` trunk, summed from stride 32 down to the embedding's; no modality controllers.

    "Feature Pyramid Networks for Object Detection", Lin et al., arXiv 1612.03144, with one output. Channel norms as in
    SAM's neck give the embedding the scale that SAM's decoder was trained with.

    Running statistics of BatchNorm stay as they are unless `train_norms` is set, as in `TimmSamNeckEncoder`.

    Args:
        modalities: 0; taken so that every encoder can be built alike.
        model: timm's name of the trunk; it must offer maps at `stride`, twice that and so on to 32.
        stride: image pixels a step of the embedding, such as 8 or 16.
        embed_channels: C of the embedding.
        train_norms: let BatchNorm follow the batches in training.

    Raises:
        SpecError: modalities, or a trunk without those maps.
    """

    size_divisor = _COARSEST

    def __init__(
        self,
        modalities: int = 0,
        *,
        model: str = "tf_efficientnet_lite0",
        stride: int = 16,
        embed_channels: int = 256,
        train_norms: bool = False,
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        if modalities:
            raise SpecError(
                f"TimmPyramidEncoder: modalities is {modalities}, expected 0, since it has no controllers. "
                "Give modalities=0, or choose tiny_vit or timm."
            )
        self.trunk = import_timm().create_model(model, features_only=True, pretrained=False)
        strides = [int(s) for s in self.trunk.feature_info.reduction()]
        used = [s for s in strides if stride <= s <= _COARSEST]
        if not used or used[0] != stride or strides[-1] != _COARSEST or any(s % stride for s in used):
            raise SpecError(
                f"TimmPyramidEncoder: '{model}' has maps at strides {strides}, expected some from {stride} to "
                f"{_COARSEST}. Choose another trunk or stride."
            )
        channels = dict(zip(strides, self.trunk.feature_info.channels(), strict=True))
        self.levels = tuple(strides.index(s) for s in reversed(used))  # coarse to fine
        self.stride, self.embed_channels, self.train_norms = stride, embed_channels, train_norms
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels[s], embed_channels, 1, bias=False) for s in reversed(used)
        )
        self.neck = nn.Sequential(
            LayerNorm2d(embed_channels),
            nn.Conv2d(embed_channels, embed_channels, 3, padding=1, bias=False),
            LayerNorm2d(embed_channels),
        )

    def train(self, mode: bool = True) -> TimmPyramidEncoder:
        """As of any module, but BatchNorm keeps its statistics unless `train_norms` is set."""
        super().train(mode)
        if not self.train_norms:
            hold_norms(self.trunk)
        return self

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of 32, and (B,), not read -> `Encoded`."""
        maps = self.trunk(image)
        fused: Tensor | None = None
        for level, lateral in zip(self.levels, self.lateral, strict=True):
            x = lateral(maps[level])
            fused = x if fused is None else x + F.interpolate(fused, size=x.shape[-2:], mode="nearest")
        return Encoded(self.neck(cast(Tensor, fused)))
