# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ESP-MedSAM's image encoder: MobileSAM's TinyViT with modality controllers in every transformer block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, channels_last, nn

from monai_effsam.errors import ShapeError, UsageError
from monai_effsam.networks.blocks.mbconv import ConvNorm, InvertedResidualBlock, MapMerging
from monai_effsam.networks.blocks.modality_controller import ControllerBank
from monai_effsam.networks.blocks.necks import SamNeck
from monai_effsam.networks.blocks.tiny_vit_block import TinyVitBlock
from monai_effsam.networks.encoders.contract import Encoded, ImageEncoder, register_encoder

__all__ = ["TinyVitEncoder", "TinyVitStage", "TinyVitStem"]

_WIDTHS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_WINDOWS = (0, 7, 14, 7)  # the first stage is convolutional
_HEAD_CHANNELS = 32
_CLASSES = 1000  # of the classifier that MobileSAM's checkpoints carry along


class TinyVitStem(nn.Module):
    """Two 3x3 convolutions of stride 2 with batch norm, a GELU between: (B, 3, H, W) -> (B, C, H / 4, W / 4).

    Args:
        channels: C, even.
    """

    def __init__(self, channels: int) -> None:
        """Build both convolutions."""
        super().__init__()
        half = channels // 2
        self.seq = nn.Sequential(ConvNorm(3, half, 3, 2), nn.GELU(), ConvNorm(half, channels, 3, 2))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4)."""
        return cast(Tensor, self.seq(image))


class TinyVitStage(nn.Module):
    """Blocks of one width, then the merging into the next stage, if there is one.

    Args:
        blocks: `InvertedResidualBlock` or `TinyVitBlock` modules.
        downsample: the merging, or None after the last stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: MapMerging | None) -> None:
        """Keep the parts under MobileSAM's names."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, modalities: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the last block's map, and what goes on into the next stage."""
        for block in self.blocks:
            x = block(x, modalities) if isinstance(block, TinyVitBlock) else block(x)
        return x, x if self.downsample is None else self.downsample(x)


@register_encoder("tiny_vit")
class TinyVitEncoder(ImageEncoder):
    """TinyViT-5M as in MobileSAM with M modality controllers in each of its 10 transformer blocks.

    "ESP-MedSAM: Efficient Self-Prompting SAM for Universal Domain-Generalized Medical Image Segmentation",
    arXiv 2407.14153. Names of shared weights are those of MobileSAM's image encoder; a controller's hold
    `controllers`. Deviations: all controllers live in one model and are chosen by sample; any image size that
    32 divides (the release takes 1024 only); biases are gathered in `forward`; see `ModalityController` for the
    start values. Parameters with one controller: 8,888,094, and 9,209,734 with the classifier.

    Args:
        modalities: M; 0 builds the plain TinyViT.
        embed_channels: C of the embedding.
        skips: also hand out the stride-8 and stride-4 maps (the paper's decoder uses none).
        tokens: T, key/value tokens of each controller.
        tie_kv: one tensor serves as key and value token (release).
        release_init: controllers start as in the release, not nearly neutral.
        with_classifier: carry the release's unused ImageNet classifier (321,640 parameters) along.
    """

    stride = 16
    size_divisor = 32

    def __init__(
        self,
        modalities: int,
        *,
        embed_channels: int = 256,
        skips: bool = False,
        tokens: int = 1,
        tie_kv: bool = True,
        release_init: bool = False,
        with_classifier: bool = False,
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        self.modalities = modalities
        self.embed_channels = embed_channels
        self.skip_channels = (_WIDTHS[1], _WIDTHS[0]) if skips else ()
        self.skip_strides = (8, 4) if skips else ()
        self.patch_embed = TinyVitStem(_WIDTHS[0])
        first = [InvertedResidualBlock(_WIDTHS[0]) for _ in range(_DEPTHS[0])]
        stages = [TinyVitStage(first, MapMerging(_WIDTHS[0], _WIDTHS[1]))]
        for i in (1, 2, 3):
            width, heads = _WIDTHS[i], _WIDTHS[i] // _HEAD_CHANNELS
            blocks = []
            for _ in range(_DEPTHS[i]):
                bank = ControllerBank(modalities, width, heads, tokens, tie_kv, release_init)
                blocks.append(TinyVitBlock(width, heads, _WINDOWS[i], bank if modalities else None))
            stages.append(TinyVitStage(blocks, MapMerging(width, _WIDTHS[i + 1], 3 - i) if i < 3 else None))
        self.layers = nn.ModuleList(stages)
        if with_classifier:
            self.norm_head, self.head = nn.LayerNorm(_WIDTHS[3]), nn.Linear(_WIDTHS[3], _CLASSES)
        self.neck = SamNeck(_WIDTHS[3], embed_channels)

    def controller_parameters(self) -> Iterator[nn.Parameter]:
        """What the second stage of ESP-MedSAM's distillation trains: everything of every controller."""
        for module in self.modules():
            if isinstance(module, ControllerBank):
                yield from module.parameters()

    def _check(self, image: Tensor, modality: Tensor) -> list[int]:
        """The modality indices as plain numbers, if the arguments can be used."""
        divisor = self.size_divisor
        if (
            image.ndim != 4
            or image.shape[1] != 3
            or any(side < 1 or side % divisor for side in image.shape[2:])
        ):
            raise ShapeError(
                f"TinyVitEncoder: image has shape {tuple(image.shape)}, expected (B, 3, H, W), H and W multiples of"
                f" {divisor}. Apply the model's ImageSpec first."
            )
        if self.modalities == 0:
            return []
        if modality.shape != image.shape[:1]:
            raise ShapeError(
                f"TinyVitEncoder: modality has shape {tuple(modality.shape)}, expected ({image.shape[0]},)."
                " Give one index an image."
            )
        indices = [int(m) for m in modality.tolist()]
        if any(not 0 <= m < self.modalities for m in indices):
            raise UsageError(
                f"TinyVitEncoder: modality is {indices}, expected indices 0..{self.modalities - 1}."
                " Use the model's own table of modalities."
            )
        return indices

    def forward(self, image: Tensor, modality: Tensor) -> Encoded:
        """(B, 3, H, W), H and W multiples of 32, and (B,) int64 -> `Encoded`, embedding (B, C, H / 16, W / 16).

        A batch may mix modalities; every image gets what it would get alone.

        Raises:
            ShapeError: an image or index tensor of another shape.
            UsageError: an index that is not 0..M-1.
        """
        modalities = self._check(image, modality)
        x = self.patch_embed(image.contiguous(memory_format=channels_last))
        last = []
        for stage in self.layers:
            kept, x = stage(x, modalities)
            last.append(kept)
        return Encoded(self.neck(x), (last[1], last[0]) if self.skip_channels else ())
