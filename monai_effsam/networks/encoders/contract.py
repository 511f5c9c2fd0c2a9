# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every image encoder of this package offers, and the table of those that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from monai_effsam.errors import UnknownNameError

__all__ = ["ENCODERS", "Encoded", "ImageEncoder", "build_encoder", "register_encoder"]


class Encoded(NamedTuple):
    """An encoder's answer.

    Attributes:
        embedding: image embedding, (B, C, H / stride, W / stride).
        skips: finer maps for decoders that use them, coarse to fine, (B, c_i, H / s_i, W / s_i) each; may be empty.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...] = ()


class ImageEncoder(nn.Module):
    """Base of the encoders: image (B, 3, H, W) and modality (B,) to `Encoded`.

    Attributes:
        embed_channels: C of the embedding.
        stride: image pixels a step of the embedding.
        skip_channels: channels of each skip map, coarse to fine.
        skip_strides: image pixels a step of each skip map.
        size_divisor: H and W must be multiples of it [px].
        fixed_size: the only H and W that it takes [px]; None where any multiple will do.
    """

    embed_channels: int
    stride: int
    skip_channels: tuple[int, ...] = ()
    skip_strides: tuple[int, ...] = ()
    size_divisor: int = 32
    fixed_size: int | None = None

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W) and (B,) int64 -> `Encoded`; images do not see each other.

        Without indices the controllers have no part in it: the function of the shared weights alone.
        """
        raise NotImplementedError

    def controller_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of its modality controllers: all that adapting it to modalities trains; none without them."""
        return iter(())


ENCODERS: dict[str, Callable[..., ImageEncoder]] = {}
"""Name -> builder; filled by the explicit imports of `monai_effsam.networks.encoders`."""


def register_encoder(name: str) -> Callable[[Callable[..., ImageEncoder]], Callable[..., ImageEncoder]]:
    """Decorator that enters a builder into `ENCODERS`."""

    def enter(builder: Callable[..., ImageEncoder]) -> Callable[..., ImageEncoder]:
        ENCODERS[name] = builder
        return builder

    return enter


def build_encoder(name: str, **options: Any) -> ImageEncoder:
    """The encoder of that name.

    Raises:
        UnknownNameError: no encoder is registered under the name.
    """
    if name not in ENCODERS:
        raise UnknownNameError("encoder", name, ENCODERS)
    return ENCODERS[name](**options)
