# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ESP-MedSAM's image encoder: MobileSAM's TinyViT with modality controllers in every transformer block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, channels_last, nn

from monai_effsam.errors import ShapeError, SpecError, UsageError
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
    """Two convolutions with batch norm, a GELU between: (B, 3, H, W) -> (B, C, H / stride, W / stride).

    At stride 4 both are 3x3 of stride 2 (MobileSAM), at stride 1 both are 1x1 of stride 1 (LiteMedSAM).

    Args:
        channels: C, even.
        stride: image pixels a step of the map, 4 or 1.

    Raises:
        SpecError: another stride.
    """

    def __init__(self, channels: int, stride: int = 4) -> None:
        """Build both convolutions."""
        super().__init__()
        if stride not in (1, 4):
            raise SpecError(f"TinyVitStem: stride is {stride}, expected 4 or 1. Choose one of them.")
        half, side, step = channels // 2, *((3, 2) if stride == 4 else (1, 1))
        self.seq = nn.Sequential(
            ConvNorm(3, half, side, step), nn.GELU(), ConvNorm(half, channels, side, step)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / stride, W / stride)."""
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
    start values. Parameters with one controller: 8,888,094, and 9,209,734 with the classifier. With
    `stem_stride=1` and no controllers it is LiteMedSAM's encoder, 5,726,740 parameters, at 256 px.

    Args:
        modalities: M; 0 builds the plain TinyViT.
        embed_channels: C of the embedding.
        skips: also hand out the maps of twice and four times the embedding's side (the paper's decoder uses none).
        tokens: T, key/value tokens of each controller.
        tie_kv: one tensor serves as key and value token (release).
        release_init: controllers start as in the release, not nearly neutral.
        with_classifier: carry the release's unused ImageNet classifier (321,640 parameters) along.
        stem_stride: 4 as in MobileSAM, an embedding of stride 16; or 1 as in LiteMedSAM, an embedding of stride 4.
    """

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
        stem_stride: int = 4,
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        self.stride = 4 * stem_stride  # two mergings of stride 2 follow the stem
        self.size_divisor = 2 * self.stride
        self.modalities = modalities
        self.embed_channels = embed_channels
        self.skip_channels = (_WIDTHS[1], _WIDTHS[0]) if skips else ()
        self.skip_strides = (2 * stem_stride, stem_stride) if skips else ()
        self.patch_embed = TinyVitStem(_WIDTHS[0], stem_stride)
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

    def _check(self, image: Tensor, modality: Tensor | None) -> list[int]:
        """The modality indices as plain numbers, none without controllers, if the arguments can be used."""
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
        if self.modalities == 0 or modality is None:
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

    def forward(self, image: Tensor, modality: Tensor | None) -> Encoded:
        """(B, 3, H, W), H and W multiples of `size_divisor`, and (B,) int64 -> `Encoded`, (B, C, H / stride, ...).

        A batch may mix modalities; every image gets what it would get alone. None leaves the controllers out.

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
