# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""segment-anything's image encoder, a ViT with windowed and global attention, behind the contract of the encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from monai_effsam.errors import ShapeError, SpecError
from monai_effsam.networks.blocks.medical_vit_block import MedicalVitBlock
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder
from monai_effsam.networks.foreign import import_segment_anything

__all__ = ["SAM_VITS", "SamVitEncoder"]

_PATCH = 16  # image pixels a token, along each side

SAM_VITS: dict[str, dict[str, object]] = {
    "vit_b": {"width": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11)},
    "vit_l": {"width": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)},
    "vit_h": {"width": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)},
}
"""Options of `SamVitEncoder` for the published sizes: 89,670,912, 308,278,272 and 637,026,048 parameters."""


@register_encoder("sam_vit")
class SamVitEncoder(ImageEncoder):
    """The layers of segment-anything's `ImageEncoderViT` under the same names; it has no modality controllers.

    "Segment Anything", Kirillov et al., arXiv 2304.02643. Keys are those of `image_encoder.*` in a SAM checkpoint.
    With `medical_tokens` it is the medical teacher of ESP-MedSAM, arXiv 2407.14153: every block gets key and value
    tokens and an expert MLP, one set for all modalities, under names that hold `medical`. Fresh experts are silent,
    and fresh tokens nearly so, see `MedicalVitBlock`: the embedding of plain weights hardly changes.

    Args:
        modalities: 0, or any number with `medical_tokens`, which serve all; taken so that every encoder can be built
            alike.
        size: the only H and W that it takes, a multiple of 16 [px]: positions are learned for each token.
        width: channels of the tokens.
        depth: number of blocks.
        heads: attention heads of each block.
        global_blocks: indices of the blocks that attend everywhere.
        window: side of a window of the other blocks [tokens]; borders are padded to whole windows.
        embed_channels: C of the embedding.
        medical_tokens: key tokens, and as many value tokens, of each block; 0 for segment-anything's ViT, 10 for the
            medical teacher.
        expert_ratio: hidden width of the medical experts over that of the tokens.
        token_bias: of the medical tokens in the attention, see `MedicalVitBlock`.
        trainable: `medical` freezes all but the medical parts.

    Raises:
        SpecError: modalities, or only medical parts to train, without such parts; a size or width that cannot be
            divided.
    """

    stride = _PATCH
    size_divisor = _PATCH

    def __init__(  # noqa: PLR0913  segment-anything's options and the medical teacher's
        self,
        modalities: int = 0,
        *,
        size: int = 1024,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window: int = 14,
        embed_channels: int = 256,
        medical_tokens: int = 0,
        expert_ratio: float = 0.25,
        token_bias: float = -5.0,
        trainable: Literal["all", "medical"] = "all",
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        if modalities and not medical_tokens:
            raise SpecError(
                f"SamVitEncoder: modalities is {modalities}, expected 0, since it has no controllers. "
                "Give modalities=0 or medical_tokens=10, or choose tiny_vit or timm."
            )
        if trainable == "medical" and not medical_tokens:
            raise SpecError(
                "SamVitEncoder: trainable is 'medical', expected 'all', since it has no medical parts. "
                "Give medical_tokens=10."
            )
        if size < 1 or size % _PATCH or width % heads:
            raise SpecError(
                f"SamVitEncoder: size is {size} and width {width}, expected multiples of {_PATCH} and of heads "
                f"({heads}). Change one of them."
            )
        self.fixed_size = size
        self.embed_channels = embed_channels
        vit = import_segment_anything().modeling.ImageEncoderViT(
            depth=depth,
            embed_dim=width,
            img_size=size,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=heads,
            patch_size=_PATCH,
            use_rel_pos=True,
            global_attn_indexes=tuple(global_blocks),
            window_size=window,
            out_chans=embed_channels,
        )
        self.patch_embed, self.blocks, self.neck = vit.patch_embed, vit.blocks, vit.neck
        self.pos_embed: nn.Parameter = vit.pos_embed
        if medical_tokens:
            hidden = round(width * expert_ratio)
            self.blocks = nn.ModuleList(
                MedicalVitBlock(block, width, heads, medical_tokens, hidden, token_bias)
                for block in vit.blocks
            )
        if trainable == "medical":
            self.requires_grad_(False)
            for parameter in self.controller_parameters():
                parameter.requires_grad_(True)

    def controller_parameters(self) -> Iterator[nn.Parameter]:
        """The medical parts: what training on medical images adds to segment-anything's weights."""
        for block in self.blocks:
            if isinstance(block, MedicalVitBlock):
                yield from block.medical.parameters()

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, size, size) and (B,) -> `Encoded`, embedding (B, C, size / 16, size / 16).

        The indices are not read: all modalities share the medical parts. None leaves those out.

        Raises:
            ShapeError: an image of another shape.
        """
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, self.fixed_size, self.fixed_size):
            raise ShapeError(
                f"SamVitEncoder: image has shape {tuple(image.shape)}, expected (B, 3, {self.fixed_size}, "
                f"{self.fixed_size}). Apply the model's ImageSpec first."
            )
        tokens = self.patch_embed(image) + self.pos_embed  # (B, h, w, width)
        for block in self.blocks:
            medical = isinstance(block, MedicalVitBlock)
            tokens = block(tokens, modality is not None) if medical else block(tokens)
        return Encoded(self.neck(tokens.permute(0, 3, 1, 2)))
