# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Any timm feature network as an image encoder, with modality controllers around it.

The trunk's five maps (strides 2 to 32) meet in a small neck: the coarsest passes a modality attention block, is
added to the stride-16 map and becomes the embedding; the finer maps, each corrected by the modality's expert, are
the skips of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks.modality_attention import ModalityAttentionBlock
from monai_effsam.networks.blocks.modality_experts import ModalityExperts
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d

__all__ = ["TimmEncoder", "fold_batch_norm"]

STRIDES = (2, 4, 8, 16, 32)


def fold_batch_norm(root: nn.Module) -> nn.Module:
    """Fold every BatchNorm that follows a convolution into it; the eval-mode function stays the same.

    A network that trains on seven modalities at once has no use for batch statistics: each batch would be
    normalised by another modality than the running average. Folded, training and inference are one function.

    Args:
        root: a network whose convolutions and BatchNorms were defined in the order of their use; changed in place.

    Returns:
        `root` itself.

    Raises:
        SpecError: a BatchNorm without a convolution of its width, and of its own, before it.
    """
    _fold_below(root, None)
    return root


def _fold_below(parent: nn.Module, last: nn.Conv2d | None) -> nn.Conv2d | None:
    """Fold the norms below a module, in order of definition; takes and gives the last convolution without a norm."""
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.Conv2d):
            last = child
        elif isinstance(child, nn.BatchNorm2d):
            if last is None or last.out_channels != child.num_features:
                raise SpecError(
                    f"fold_batch_norm: no convolution of its own precedes '{name}' of {type(parent).__name__}, "
                    "expected one of its width. Build with fold=False."
                )
            _fold_into(last, child)
            act = getattr(child, "act", None)  # timm's BatchNormAct2d holds its activation
            setattr(parent, name, act if isinstance(act, nn.Module) else nn.Identity())
            last = None
        else:
            last = _fold_below(child, last)
    return last


def _fold_into(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight / torch.sqrt(var + norm.eps)
    bias = norm.bias - mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        conv.bias = nn.Parameter(bias.detach().clone())


@register_encoder("timm")
class TimmEncoder(ImageEncoder):
    """A timm `features_only` trunk with a neck to the embedding and modality controllers.

    Args:
        model: timm's name of the network; it must offer maps at strides 2, 4, 8, 16 and 32.
        modalities: number of modalities M; 0 for an encoder without controllers.
        embed_channels: C of the embedding.
        skips: strides of the maps handed to the decoder, coarse to fine.
        heads: heads of the attention block.
        expert_ratio: hidden width of the experts over their channels.
        fold: fold the trunk's BatchNorms into its convolutions (`fold_batch_norm`). Load pretrained trunk weights
            before folding: `TimmEncoder(..., fold=False)`, load, `fold_batch_norm(encoder.trunk)`.

    Raises:
        SpecError: the network has no maps at those strides.
    """

    stride = 16

    def __init__(
        self,
        model: str,
        modalities: int,
        *,
        embed_channels: int = 256,
        skips: Sequence[int] = (8, 4, 2),
        heads: int = 8,
        expert_ratio: float = 1.0,
        fold: bool = True,
    ) -> None:
        super().__init__()
        trunk = import_timm().create_model(model, features_only=True, pretrained=False)
        if tuple(trunk.feature_info.reduction()) != STRIDES:
            raise SpecError(
                f"TimmEncoder: '{model}' has maps at strides {trunk.feature_info.reduction()}, "
                f"expected {list(STRIDES)}. Choose another network."
            )
        channels = dict(zip(STRIDES, trunk.feature_info.channels(), strict=True))
        self.trunk = fold_batch_norm(trunk) if fold else trunk
        self.embed_channels = embed_channels
        self.skip_strides = tuple(skips)
        self.skip_channels = tuple(channels[s] for s in skips)
        self.experts = nn.ModuleDict(
            {
                str(s): ModalityExperts(channels[s], modalities, ratio=expert_ratio)
                for s in STRIDES
                if s > 2 and modalities
            }
        )
        self.coarse = nn.Sequential(nn.Conv2d(channels[32], embed_channels, 1), LayerNorm2d(embed_channels))
        self.attention = ModalityAttentionBlock(
            embed_channels, modalities, heads=heads, expert_ratio=expert_ratio / 2
        )
        self.lateral = nn.Conv2d(channels[16], embed_channels, 1)
        self.neck = nn.Sequential(
            LayerNorm2d(embed_channels),
            nn.Conv2d(embed_channels, embed_channels, 3, padding=1, bias=False),
            LayerNorm2d(embed_channels),
        )

    def controller_parameters(self) -> Iterator[nn.Parameter]:
        """The experts of its maps, and token, bias and expert of the attention block."""
        yield from self.experts.parameters()
        yield from (self.attention.token, self.attention.token_bias)
        yield from self.attention.experts.parameters()

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of 32, and (B,) int64 or None -> `Encoded`."""
        return self.finish(self.features(image), modality)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The trunk's maps of (B, 3, H, W), fine to coarse; what a training that leaves the trunk alone can keep."""
        return tuple(self.trunk(image))

    def finish(self, features: Sequence[Tensor], modality: Tensor | None) -> Encoded:
        """Everything after the trunk: controllers, attention and neck on the maps of `features`."""
        maps = dict(zip(STRIDES, features, strict=True))
        for stride, expert in self.experts.items() if modality is not None else ():
            x = maps[int(stride)]
            last = x.permute(0, 2, 3, 1)
            maps[int(stride)] = x + expert(last, modality).permute(0, 3, 1, 2)
        coarse = self.attention(self.coarse(maps[32]), modality)
        fused = self.lateral(maps[16]) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return Encoded(self.neck(fused), tuple(maps[s] for s in self.skip_strides))
