# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TiC on top of a convolution net that has seen photographs: few pictures teach the blocks, but no texture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, channels_last, nn

from monai_effsam.errors import ShapeError, SpecError
from monai_effsam.networks.blocks.tic_block import TicMerging
from monai_effsam.networks.encoders.tic_trunk import tic_stage
from monai_effsam.networks.encoders.timm_encoder import fold_batch_norm
from monai_effsam.networks.foreign import import_timm

__all__ = ["HybridTicTrunk"]

_STRIDES = (4, 8, 16)


class _Stem(nn.Module):
    """The layers of a timm network down to stride 16, with random weights.

    Args:
        name: timm's.

    Raises:
        SpecError: the network has no maps at strides 4, 8 and 16.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.net: Any = import_timm().create_model(name, pretrained=False, num_classes=0)
        found = {each["reduction"]: number for number, each in enumerate(self.net.feature_info)}
        if not set(_STRIDES) <= set(found):
            raise SpecError(
                f"HybridTicTrunk: '{name}' has maps at strides {list(found)}, expected {list(_STRIDES)} among them."
                " Choose another network."
            )
        self.places = [found[stride] for stride in _STRIDES]
        self.channels = tuple(self.net.feature_info[place]["num_chs"] for place in self.places)
        self.net.prune_intermediate_layers(self.places, prune_norm=True, prune_head=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.net.forward_intermediates(
            image, indices=self.places, stop_early=True, intermediates_only=True
        )
        return fine, middle, coarse


class HybridTicTrunk(nn.Module):
    """Image to maps at strides 4, 8, 16 of a timm network, and one more at stride 16 of `TicBlock`s on the last.

    A hybrid in the sense of Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1; the blocks are
    those of `TicTrunk`, so any size of image will do. Norms of the timm network are folded into its convolutions, so
    that training and inference are one function.

    Args:
        stem: timm's name of the network that gives the maps; its deeper layers are left out.
        width: channels of the blocks, a multiple of `head_channels`.
        depth: blocks.
        head_channels: D of every head; it divides the channels of the stem's map at stride 16 too.
        kernel_size: of the windows, odd.
        shift: whether every second block shifts.
        inter_pooling: whether the last block pools.
        dropout: of the attention's weights, in training.

    Attributes:
        channels: of the four maps.
        strides: image pixels a step of each map.

    Raises:
        SpecError: a stem without maps at these strides, or widths that the heads do not divide.
        MissingExtraError: timm is not installed.
    """

    strides = (*_STRIDES, 16)

    def __init__(
        self,
        stem: str,
        width: int = 128,
        depth: int = 2,
        *,
        head_channels: int = 16,
        kernel_size: int = 3,
        shift: bool = True,
        inter_pooling: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """Build with random weights."""
        super().__init__()
        self.stem = _Stem(stem)
        own = self.stem.channels
        if width % head_channels or own[-1] % head_channels:
            raise SpecError(
                f"HybridTicTrunk: width is {width} and the stem's {own[-1]}, expected multiples of {head_channels}."
                " Change head_channels or the width."
            )
        self.channels = (*own, width)
        fold_batch_norm(self.stem)
        self.merging = TicMerging(own[-1], width, own[-1] // head_channels, stride=1)
        self.stage = tic_stage(
            width,
            depth,
            width // head_channels,
            kernel_size,
            shift=shift,
            pooled=inter_pooling,
            dropout=dropout,
        )

    def take_stem(self, network: nn.Module) -> None:
        """Begin with the weights of a whole timm network of the stem's name, such as `load_timm_trunk` reads."""
        fresh, state = _Stem(self.stem.name), network.state_dict()
        fresh.net.load_state_dict({name: state[name] for name in fresh.net.state_dict()})
        self.stem.load_state_dict(fold_batch_norm(fresh).state_dict())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W), any H and W -> maps (B, c_i, ceil(H / s_i), ceil(W / s_i)).

        Raises:
            ShapeError: an image of another shape.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ShapeError(
                f"HybridTicTrunk: image has shape {tuple(image.shape)}, expected (B, 3, H, W). Apply the model's"
                " ImageSpec first."
            )
        fine, middle, coarse = self.stem(image.contiguous(memory_format=channels_last))
        return fine, middle, coarse, self.stage(self.merging(coarse))
