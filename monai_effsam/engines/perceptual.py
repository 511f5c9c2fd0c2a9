# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The readings of KD SAM's perceptual term between a student's embeddings and its teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from monai_effsam.checkpoints.vgg import load_vgg
from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.students import decoder_shape
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.losses import (
    EmbeddingPerceptualLoss,
    MaskedPerceptualLoss,
    ProjectedFeatures,
    PyramidFeatures,
)
from monai_effsam.networks.encoders import Encoded, ImageEncoder
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec

__all__ = ["EmbeddingTerm", "MaskTerm", "Perceptual", "build_perceptual", "label_boxes"]

Perceptual = Literal["none", "pyramid", "projected", "masked"]


def build_perceptual(
    kind: str, teacher: PromptableSam | EspMedSam, spec: ImageSpec, vgg: Path | None = None
) -> nn.Module | None:
    """A module (ours, theirs, batch) -> scalar, or None.

    Args:
        kind: `none`; `pyramid` compares what the upscaling layers of the teacher's decoder make of both embeddings
            (mode C of our notes on the paper), `projected` what a VGG sees in them (A), `masked` what it sees of the
            picture through the masks that the teacher's decoder makes of them (B).
        teacher: whose decoder is used; it is copied.
        spec: of the student.
        vgg: file of VGG weights, for the last two.

    Raises:
        UnknownNameError: no such kind.
        UsageError: a teacher without SAM's decoder, or no VGG.
        WeightsError: a VGG that cannot be used.
    """
    if kind not in get_args(Perceptual):
        raise UnknownNameError("perceptual loss", kind, get_args(Perceptual))
    if kind == "none":
        return None
    if kind in ("pyramid", "masked") and not isinstance(teacher, PromptableSam):
        raise UsageError(
            f"perceptual loss '{kind}' needs the decoder of a promptable teacher, found a self-prompting one. "
            "Choose projected or none."
        )
    if kind == "pyramid":
        return EmbeddingTerm(EmbeddingPerceptualLoss(PyramidFeatures(teacher.mask_decoder.output_upscaling)))  # type: ignore[union-attr, arg-type]
    if vgg is None:
        raise UsageError(f"perceptual loss '{kind}' needs the weights of a VGG. Give --vgg FILE.")
    layers = load_vgg(vgg)
    if kind == "projected":
        return EmbeddingTerm(EmbeddingPerceptualLoss(ProjectedFeatures(layers)))
    return MaskTerm(MaskedPerceptualLoss(layers), teacher, spec)  # type: ignore[arg-type]


class EmbeddingTerm(nn.Module):
    """A loss of embeddings, with nothing where the picture is not.

    Args:
        loss: (ours, theirs) -> scalar.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, ours: Tensor, theirs: Tensor, batch: ViewBatch) -> Tensor:
        """Embeddings of student and teacher, (B, C, h, w) each, and the batch that they belong to; a scalar."""
        return self.loss(ours * batch.valid, theirs * batch.valid)


class MaskTerm(nn.Module):
    """A loss of the masks that a frozen decoder makes of both embeddings, for one box a picture.

    The box is that of all that is labelled, or the middle of the frame where nothing is.

    Args:
        loss: (masks, masks, picture) -> scalar.
        teacher: whose decoder is copied.
        spec: of the student.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, loss: MaskedPerceptualLoss, teacher: PromptableSam, spec: ImageSpec) -> None:
        super().__init__()
        self.loss, self.size = loss, spec.size
        encoder = _NoEncoder(teacher.image_encoder.embed_channels, spec.stride)
        self.decoder = PromptableSam(encoder, drawn=teacher.drawn, **decoder_shape(teacher))
        parts = {k: v for k, v in teacher.state_dict().items() if not k.startswith("image_encoder.")}
        self.decoder.load_state_dict(parts)
        self.decoder.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, ours: Tensor, theirs: Tensor, batch: ViewBatch) -> Tensor:
        """Embeddings of student and teacher, (B, C, h, w) each, and the batch that they belong to; a scalar."""
        boxes = label_boxes(batch.label, self.size).to(ours)[:, None]
        found = self.decoder.decode(Encoded(ours), boxes=boxes).mask_logits[:, 0]
        with torch.no_grad():
            wanted = self.decoder.decode(Encoded(theirs), boxes=boxes).mask_logits[:, 0]
        return self.loss(found, wanted, batch.image * self.std + self.mean)


class _NoEncoder(ImageEncoder):
    """What a decoder must know of the encoder whose embeddings it is given."""

    def __init__(self, embed_channels: int, stride: int) -> None:
        super().__init__()
        self.embed_channels, self.stride = embed_channels, stride


def label_boxes(label: Tensor, size: int) -> Tensor:
    """(B, 4) boxes around all that is labelled, (x0, y0, x1, y1) [px of the frame]."""
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).mul(size).repeat(len(label), 1)
    for row, layers in enumerate(label):
        there = (layers > 0).any(0) if len(layers) else torch.zeros(1, 1, dtype=torch.bool)
        if there.any():
            rows, columns = (torch.nonzero(there.any(axis)).flatten() for axis in (1, 0))
            boxes[row] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return boxes
