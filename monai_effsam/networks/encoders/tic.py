# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A TiC trunk as an image encoder of segment-anything's kind."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from monai_effsam.errors import SpecError
from monai_effsam.networks.blocks.necks import SamNeck
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.encoders.tic_trunk import TicTrunk
from monai_effsam.networks.layers.still_norms import hold_norms

__all__ = ["TicEncoder"]


@register_encoder("tic")
class TicEncoder(ImageEncoder):
    """A TiC trunk whose last map stays at stride 16, under segment-anything's neck; no modality controllers.

    "TiC: Exploring Vision Transformer in Convolution", arXiv 2310.04134; which parts are ours: see `TicTrunk`. No
    table of positions, so any H and W that 32 divides will do, and the cost grows as their product.

    Args:
        modalities: 0; taken so that every encoder can be built alike.
        size: `nano`, `ti`, `s`, `b`, or what `TicTrunk` takes.
        embed_channels: C of the embedding.
        skips: also return the maps at strides 8 and 4.
        train_norms: let BatchNorm follow the batches in training; False holds its statistics.
        trunk: further options of `TicTrunk`: kernel_size, shift, inter_pooling, dropout.

    Raises:
        SpecError: modalities, or options that do not fit.
        UnknownNameError: no size of that name.
    """

    stride = 16

    def __init__(
        self,
        modalities: int = 0,
        *,
        size: str = "s",
        embed_channels: int = 256,
        skips: bool = False,
        train_norms: bool = True,
        **trunk: Any,
    ) -> None:
        """Build with PyTorch's default initialisation."""
        super().__init__()
        if modalities:
            raise SpecError(
                f"TicEncoder: modalities is {modalities}, expected 0, since it has no controllers. "
                "Give modalities=0, or choose tiny_vit or timm."
            )
        self.trunk = TicTrunk(size, last_stride=1, **trunk)
        self.neck = SamNeck(self.trunk.channels[-1], embed_channels)
        self.embed_channels, self.train_norms = embed_channels, train_norms
        self.skip_channels = (self.trunk.channels[1], self.trunk.channels[0]) if skips else ()
        self.skip_strides = (8, 4) if skips else ()

    def train(self, mode: bool = True) -> TicEncoder:
        """As of any module, but BatchNorm keeps its statistics unless `train_norms` is set."""
        super().train(mode)
        if not self.train_norms:
            hold_norms(self.trunk)
        return self

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of 32, and (B,), not read -> `Encoded`, (B, C, H / 16, W / 16).

        Raises:
            ShapeError: an image of another number of channels.
        """
        maps = self.trunk(image)
        return Encoded(self.neck(maps[-1]), (maps[1], maps[0]) if self.skip_channels else ())
