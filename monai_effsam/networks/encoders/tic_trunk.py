# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The trunk of TiC networks: a pyramid of four maps from blocks of local attention, for images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, channels_last, nn

from monai_effsam.errors import ShapeError, SpecError, UnknownNameError
from monai_effsam.networks.blocks.tic_block import TicBlock, TicMerging, TicStem

__all__ = ["TIC_SIZES", "TicSize", "TicTrunk", "tic_size", "tic_stage"]


@dataclass(frozen=True, slots=True)
class TicSize:
    """Width and depth of the four stages of a trunk.

    Args:
        widths: channels of each stage, multiples of `head_channels`.
        depths: blocks of each stage.
        head_channels: D of every head.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_channels: int = 32

    def __post_init__(self) -> None:
        """Check.

        Raises:
            SpecError: a width that the heads do not divide.
        """
        if any(width % self.head_channels or width % 2 for width in self.widths) or min(self.depths) < 1:
            raise SpecError(
                f"TicSize: widths are {self.widths} and depths {self.depths}, expected even multiples of"
                f" {self.head_channels} and at least 1. Change head_channels or the widths."
            )


TIC_SIZES: Mapping[str, TicSize] = {
    "nano": TicSize((24, 48, 96, 192), (2, 2, 4, 1), 24),
    "ti": TicSize((32, 64, 128, 256), (2, 2, 6, 2)),
    "s": TicSize((64, 128, 256, 512), (2, 2, 6, 2)),
    "b": TicSize((96, 192, 384, 768), (2, 2, 18, 2)),
}
"""Ours: the paper's sizes cannot be read. With 1000 classes Ti, S and B have 3.6, 13.9 and 52.1 million parameters."""

_POOLED = 3  # the cell of inter-pooling


def tic_size(size: str | TicSize) -> TicSize:
    """A size by its name, or itself.

    Raises:
        UnknownNameError: no size of that name.
    """
    if isinstance(size, TicSize):
        return size
    if size not in TIC_SIZES:
        raise UnknownNameError("TiC size", size, TIC_SIZES)
    return TIC_SIZES[size]


def tic_stage(
    width: int,
    depth: int,
    heads: int,
    kernel_size: int = 3,
    *,
    shift: bool = True,
    pooled: bool = True,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Blocks of one width: windows dilated by 1 and 2 in turn; every second block shifts, the last one may pool.

    Args:
        width: channels.
        depth: blocks.
        heads: of each block.
        kernel_size: of the windows, odd.
        shift: whether every second block shifts keys and values, by one window more each time.
        pooled: whether the last block pools keys and values.
        dropout: of the attention's weights, in training.
    """
    blocks = []
    for number in range(depth):
        pools = pooled and number == depth - 1
        options: dict[str, Any] = {
            "dilation": 1 if pools else 1 + number % 2,
            "shift": kernel_size * (number // 2 + 1) if shift and number % 2 else None,
            "inter_pool": _POOLED if pools else None,
        }
        blocks.append(TicBlock(width, heads, kernel_size, dropout=dropout, **options))
    return nn.Sequential(*blocks)


class TicTrunk(nn.Module):
    """Image to maps at strides 4, 8, 16 and 32 of any H and W: no table of positions, no fixed size.

    Architecture of our own around the operator of "TiC: Exploring Vision Transformer in Convolution",
    arXiv 2310.04134: a stem, four stages of `TicBlock`, an MSA-Conv of stride 2 between them. In a stage the windows
    are dilated by 1 and 2 in turn; every second block shifts keys and values, by one window more each time; the last
    block of the first three stages pools them.

    Args:
        size: name in `TIC_SIZES`, or a `TicSize`.
        in_channels: of the image.
        kernel_size: of the windows in the blocks, odd.
        shift: whether every second block shifts.
        inter_pooling: whether the last blocks pool.
        last_stride: 1 keeps the last map at stride 16.
        dropout: of the attention's weights, in training.

    Attributes:
        channels: of the four maps.
        strides: image pixels a step of each map.
    """

    def __init__(
        self,
        size: str | TicSize = "nano",
        in_channels: int = 3,
        *,
        kernel_size: int = 3,
        shift: bool = True,
        inter_pooling: bool = True,
        last_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """Build with PyTorch's default initialisation."""
        super().__init__()
        chosen = tic_size(size)
        if last_stride not in (1, 2):
            raise SpecError(f"TicTrunk: last_stride is {last_stride}, expected 1 or 2. Choose one of them.")
        self.channels, self.in_channels = chosen.widths, in_channels
        self.strides = (4, 8, 16, 16 * last_stride)
        self.stem = TicStem(in_channels, chosen.widths[0])
        self.stages, self.mergings = nn.ModuleList(), nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(chosen.widths, chosen.depths, strict=True)):
            heads = width // chosen.head_channels
            self.stages.append(
                tic_stage(
                    width,
                    depth,
                    heads,
                    kernel_size,
                    shift=shift,
                    pooled=inter_pooling and stage < 3,
                    dropout=dropout,
                )
            )
            if stage < 3:
                stride = last_stride if stage == 2 else 2
                self.mergings.append(TicMerging(width, chosen.widths[stage + 1], heads, stride))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C_in, H, W), any H and W -> maps (B, c_i, ceil(H / s_i), ceil(W / s_i)), fine to coarse.

        Raises:
            ShapeError: an image of another shape.
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ShapeError(
                f"TicTrunk: image has shape {tuple(image.shape)}, expected (B, {self.in_channels}, H, W)."
                " Apply the model's ImageSpec first."
            )
        x = self.stem(image.contiguous(memory_format=channels_last))
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(self.mergings[number - 1](x) if number else x)
            maps.append(x)
        return maps[0], maps[1], maps[2], maps[3]
