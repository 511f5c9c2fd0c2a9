# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An encoder built from an `Architecture`: stem, stages of operations, and a neck that sums them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks.mbconv import ConvNorm
from monai_effsam.networks.blocks.modality_experts import ModalityExperts
from monai_effsam.networks.blocks.operations import build_operation
from monai_effsam.networks.encoders.architecture import CONV_ENTRY, SIZE_STEP, TRUNK_KINDS, Architecture
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.encoders.inverted_trunk import InvertedStem, clipped, inverted_entry
from monai_effsam.networks.encoders.timm_encoder import fold_batch_norm
from monai_effsam.networks.layers.layer_norm_2d import LayerNorm2d
from monai_effsam.networks.layers.still_norms import hold_norms

__all__ = [
    "FusingNeck",
    "SearchedEncoder",
    "SearchedStem",
    "embedding_head",
    "enlarged",
    "stage_block",
    "stage_entry",
]


class SearchedStem(nn.ModuleList):
    """3x3 convolutions of stride 2 with batch norm and ReLU, from the image to the stride of the first stage.

    Args:
        width: C of its last map; each one before has half, at least 16.
        stride: of the last map, 4 or 8.
    """

    def __init__(self, width: int, stride: int) -> None:
        """Build two or three of them."""
        steps = stride.bit_length() - 1
        widths = [3, *(max(16, width >> (steps - 1 - i)) for i in range(steps - 1)), width]
        super().__init__(stage_entry(a, b) for a, b in pairwise(widths))
        self.channels = tuple(widths[1:])

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> its maps at strides 2, 4 and maybe 8."""
        maps = []
        for layer in self:
            image = layer(image)
            maps.append(image)
        return maps


def stage_entry(
    inputs: int, outputs: int, *, name: str = CONV_ENTRY, stride: int = 2, trunk: str = TRUNK_KINDS[0]
) -> nn.Sequential:
    """What leads to a stage; (B, C, H, W) -> (B, C', H / stride, W / stride).

    Args:
        inputs: C.
        outputs: C'.
        name: 3x3 convolution of stride 2, batch norm and ReLU, or an inverted residual.
        stride: of the latter, 1 or 2.
        trunk: one of `TRUNK_KINDS`.
    """
    if name == CONV_ENTRY:
        return nn.Sequential(ConvNorm(inputs, outputs, 3, 2), nn.ReLU())
    return inverted_entry(inputs, outputs, name=name, stride=stride, same=trunk == "inverted_same")


def stage_block(channels: int, *, name: str, trunk: str = TRUNK_KINDS[0]) -> nn.Module:
    """An operation as a kind of trunk has it, (B, C, H, W) -> (B, C, H, W); errors as of `build_operation`."""
    block = build_operation(name, channels)
    return block if trunk == TRUNK_KINDS[0] else clipped(block)


def embedding_head(width: int, channels: int, kind: str) -> nn.Sequential:
    """From the sum of all maps to the embedding: ReLU, convolutions as `NECK_KINDS` tells, segment-anything's norm.

    Args:
        width: C of the sum.
        channels: C of the embedding.
        kind: one of `NECK_KINDS`.
    """
    layers: list[nn.Module] = [nn.ReLU()]
    if kind == "dense":
        layers.append(nn.Conv2d(width, channels, 3, padding=1, bias=False))
    else:
        layers += [
            ConvNorm(width, width, 3, groups=width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 1, bias=False),
        ]
    return nn.Sequential(*layers, LayerNorm2d(channels))


def enlarged(x: Tensor, factor: int) -> Tensor:
    """A map on a grid `factor` times as fine."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class FusingNeck(nn.Module):
    """Maps of several stages through 1x1 convolutions, enlarged to one grid, summed, made an embedding.

    Args:
        channels: of the maps, fine to coarse; each has twice the stride of the one before.
        width: C of the sum.
        embed_channels: C of the embedding.
        kind: one of `NECK_KINDS`.
    """

    def __init__(self, channels: Sequence[int], width: int, embed_channels: int, kind: str) -> None:
        """Build; the last layer is the norm of the embedding."""
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(c, width) for c in channels)
        self.head = embedding_head(width, embed_channels, kind)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, C_i, H / 2^i, W / 2^i) each -> (B, C, H, W)."""
        fused: Tensor = self.lateral[0](maps[0])
        for i, (lateral, x) in enumerate(zip(self.lateral, maps, strict=True)):
            fused = fused + enlarged(lateral(x), 2**i) if i else fused
        return cast(Tensor, self.head(fused))


@register_encoder("searched")
class SearchedEncoder(ImageEncoder):
    """The network that an `Architecture` describes; convolutions first, so any H and W that 32 divides will do.

    Args:
        modalities: number of modalities M, whose experts correct the map of each stage; 0 for none.
        architecture: the description, or its JSON.
        skips: strides of the maps handed to the decoder, coarse to fine, finer than the embedding.
        expert_ratio: hidden width of the experts over their channels.
        train_norms: let BatchNorm follow the batches in training; False holds its statistics.
        fold: fold every BatchNorm into its convolution (`fold_batch_norm`), for weights that were folded.

    Attributes:
        inherited: what stem and stages took from a pretrained trunk, for cards; None for nothing.

    Raises:
        SpecError: an architecture that cannot be built, or skips at other strides.
        UnknownNameError: an operation that does not exist.
    """

    size_divisor = SIZE_STEP

    def __init__(
        self,
        modalities: int = 0,
        *,
        architecture: Architecture | Mapping[str, Any],
        skips: Sequence[int] = (),
        expert_ratio: float = 1.0,
        train_norms: bool = True,
        fold: bool = False,
    ) -> None:
        """Build with PyTorch's default initialisation."""
        super().__init__()
        if not isinstance(architecture, Architecture):
            architecture = Architecture.from_json(architecture)
        self.architecture, self.train_norms = architecture, train_norms
        self.inherited: dict[str, Any] | None = None
        self.stride, self.embed_channels = architecture.stride, architecture.decoder.width
        shapes = architecture.stages
        kind = architecture.trunk
        self.stem: InvertedStem | SearchedStem = (
            InvertedStem(same=kind == "inverted_same")
            if architecture.inverted
            else SearchedStem(shapes[0].width, shapes[0].stride)
        )
        self.stages = nn.ModuleList()
        width, stride = self.stem.channels[-1], 2 ** len(self.stem.channels)
        for i, shape in enumerate(shapes):
            layers: list[nn.Module] = []
            if i or architecture.inverted:
                step = shape.stride // stride
                layers.append(stage_entry(width, shape.width, name=shape.entry, stride=step, trunk=kind))
            layers += [stage_block(shape.width, name=name, trunk=kind) for name in shape.ops]
            self.stages.append(nn.Sequential(*layers))
            width, stride = shape.width, shape.stride
        channels = {2 ** (i + 1): c for i, c in enumerate(self.stem.channels)}
        channels |= {shape.stride: shape.width for shape in shapes}
        self.skip_strides = _checked(skips, channels, self.stride)
        self.skip_channels = tuple(channels[s] for s in self.skip_strides)
        self.levels = tuple(architecture.levels)
        self.neck = FusingNeck(
            [channels[s] for s in self.levels],
            architecture.neck.width,
            self.embed_channels,
            architecture.neck.kind,
        )
        used = dict.fromkeys((*self.levels, *self.skip_strides)) if modalities else {}
        self.experts = nn.ModuleDict(
            {str(s): ModalityExperts(channels[s], modalities, ratio=expert_ratio) for s in used}
        )
        if fold:
            fold_batch_norm(self)

    def train(self, mode: bool = True) -> SearchedEncoder:
        """As of any module, but BatchNorm keeps its statistics unless `train_norms` is set."""
        super().train(mode)
        if not self.train_norms:
            hold_norms(self)
        return self

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those of stem and stages if they took some from a pretrained trunk, which a training treats gently."""
        if self.inherited:
            yield from self.stem.parameters()
            yield from self.stages.parameters()

    def controller_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the experts."""
        yield from self.experts.parameters()

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of 32, and (B,) int64 or None -> `Encoded`."""
        maps = {2 ** (i + 1): x for i, x in enumerate(self.stem(image))}
        x = maps[max(maps)]
        for shape, stage in zip(self.architecture.stages, self.stages, strict=True):
            x = maps[shape.stride] = stage(x)
        for key, expert in self.experts.items() if modality is not None else ():
            x = maps[int(key)]
            maps[int(key)] = x + expert(x.permute(0, 2, 3, 1), modality).permute(0, 3, 1, 2)
        embedding = self.neck([maps[s] for s in self.levels])
        return Encoded(embedding, tuple(maps[s] for s in self.skip_strides))


def _checked(skips: Sequence[int], channels: Mapping[int, int], stride: int) -> tuple[int, ...]:
    """Strides of the skips, if there are such maps."""
    known = sorted((s for s in channels if s < stride), reverse=True)
    if any(s not in known for s in skips) or list(skips) != sorted(set(skips), reverse=True):
        raise SpecError(
            f"SearchedEncoder: skips are at strides {list(skips)}, expected some of {known}, coarse to fine."
        )
    return tuple(skips)
