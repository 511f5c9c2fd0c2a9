# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the decoder costs that an architecture asks for: with a small encoder it is the larger half."""

from __future__ import annotations

from dataclasses import dataclass

from monai_effsam.nas.space.search_space import SearchSpace
from monai_effsam.networks.blocks.operations import ComputeCost
from monai_effsam.networks.encoders.architecture import Architecture, DecoderShape

__all__ = ["DecoderPiece", "decoder_piece", "space_decoders"]

_MASKS = 4  # mask tokens: one for a single mask, three for several
_TOKENS = 1 + _MASKS + 2  # quality, masks, the corners of a box
_QUALITY = 256  # hidden width of the quality head
_MASK_PROMPT = (1, 4, 16)  # channels of the branch that reads mask prompts


@dataclass(frozen=True)
class DecoderPiece:
    """Prompt encoder and mask decoder of a `PromptableSam`, for one box and all four masks.

    Args:
        shape: of its transformer.
        grid: side of the embedding [cells].
        drawn: the box is also drawn as a mask prompt, as students of our own models have it (see `PromptableSam`).
    """

    shape: DecoderShape
    grid: int
    drawn: bool = True

    @property
    def key(self) -> str:
        """What it is called in tables, such as `decoder/drawn/c256/d2/m1024/16x16`."""
        shape, kind = self.shape, "drawn" if self.drawn else "plain"
        return f"decoder/{kind}/c{shape.width}/d{shape.depth}/m{shape.mlp_dim}/{self.grid}x{self.grid}"

    @property
    def cost(self) -> ComputeCost:
        """MACs of one pass with a box, and all parameters; the position code of the grid is counted, too."""
        return ComputeCost(self._macs(), self._parameters())

    def _macs(self) -> int:
        width, half, cells, tokens = self.shape.width, self.shape.width // 2, self.grid**2, _TOKENS
        # queries and outputs of the side that looks, keys and values of the side that is looked at, both products
        to_image = 2 * tokens * width * half + 2 * cells * width * half + 2 * tokens * cells * half
        to_tokens = 2 * cells * width * half + 2 * tokens * width * half + 2 * tokens * cells * half
        own = 4 * tokens * width * width + 2 * tokens * tokens * width
        layer = own + to_image + 2 * tokens * width * self.shape.mlp_dim + to_tokens
        upscaling = cells * width * width + 4 * cells * (width // 4) * (width // 8) * 4
        heads = _MASKS * _mlp(width, width, width // 8) + _mlp(width, _QUALITY, _MASKS)
        masks = _MASKS * (width // 8) * 16 * cells
        position = (cells + 2) * 2 * half
        one, few, more = _MASK_PROMPT
        drawing = cells * (4 * 4 * one * few + 4 * few * more + more * width) if self.drawn else 0
        return self.shape.depth * layer + to_image + upscaling + heads + masks + position + drawing

    def _parameters(self) -> int:
        width, half, hidden = self.shape.width, self.shape.width // 2, self.shape.mlp_dim
        across = 4 * width * half + 3 * half + width
        own = 4 * (width * width + width)
        mlp = 2 * width * hidden + hidden + width
        transformer = self.shape.depth * (own + 2 * across + mlp + 8 * width) + across + 2 * width
        quarter, eighth = width // 4, width // 8
        upscaling = 4 * width * quarter + 3 * quarter + 4 * quarter * eighth + eighth
        heads = _MASKS * (_mlp(width, width, eighth) + 2 * width + eighth)
        heads += _mlp(width, _QUALITY, _MASKS) + 2 * _QUALITY + _MASKS
        one, few, more = _MASK_PROMPT
        prompts = 6 * width + (4 * one * few + 3 * few) + (4 * few * more + 3 * more) + (more * width + width)
        return transformer + upscaling + heads + (1 + _MASKS) * width + prompts


def _mlp(inputs: int, hidden: int, outputs: int) -> int:
    """Weights of a head of three layers."""
    return inputs * hidden + hidden * hidden + hidden * outputs


def decoder_piece(architecture: Architecture, *, drawn: bool = True) -> DecoderPiece:
    """The decoder that an architecture asks for, at its grid; `drawn` as of `DecoderPiece`."""
    return DecoderPiece(architecture.decoder, architecture.grid, drawn)


def space_decoders(space: SearchSpace) -> list[DecoderPiece]:
    """Every decoder that an architecture of a space may ask for, each once, drawn and plain."""
    shapes = [
        DecoderShape(width, depth, hidden)
        for width in space.decoder_widths
        for depth in space.decoder_depths
        for hidden in space.mlp_dims
    ]
    grids = dict.fromkeys(size // stride for size in space.sizes for stride in space.strides)
    return [DecoderPiece(shape, grid, drawn) for drawn in (True, False) for grid in grids for shape in shapes]
