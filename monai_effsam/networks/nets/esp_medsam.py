# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ESP-MedSAM: an encoder with modality controllers, a self-prompter and a query-decoupled decoder.

"ESP-MedSAM: Efficient Self-Prompting SAM for Universal Domain-Generalized Medical Image Segmentation", Xu et al.,
arXiv 2407.14153. The encoder is exchangeable; `paper` geometry is TinyViT at 1024 px, the shipped one is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import ShapeError
from monai_effsam.networks.decoders.query_decoupled import QueryDecoupledDecoder
from monai_effsam.networks.encoders import Encoded, ImageEncoder, build_encoder
from monai_effsam.networks.prompts.point_box import PointBoxPrompter
from monai_effsam.networks.prompts.self_patch import SelfPatchPrompter
from monai_effsam.targets import TARGETS, Target, targets_from_json

__all__ = ["Decoded", "EspMedSam"]

ABSENT_LOGIT = -20.0  # logit of a target that the image's modality does not have


class Decoded(NamedTuple):
    """Masks of the T_m targets of one modality.

    Attributes:
        mask_logits: (B, T_m, H', W'), finer or equal to a quarter of the image.
        quality: estimated IoU, (B, T_m), 0..1.
        presence: calibrated probability that the target is in the image, (B, T_m), 0..1.
        patch_logits: the self-prompt, (B, P, h / 2, w / 2).
        presence_logits: the same before calibration and sigmoid, (B, T_m); for training.
    """

    mask_logits: Tensor
    quality: Tensor
    presence: Tensor
    patch_logits: Tensor
    presence_logits: Tensor


class EspMedSam(nn.Module):
    """Outlines every target of an image's modality without a prompt; points, boxes or a mask steer it.

    Args:
        encoder: an image encoder, or the options of `build_encoder` (its `modalities` is filled in).
        targets: the target table, or its JSON rows; its modalities, in order of appearance, are the network's.
        patch_per_target: one self-prompt map a target instead of one for all (the release).
        prompt_mode: `hard`, `soft` or `ste`; see `SelfPatchPrompter`.
        decoder: options of `QueryDecoupledDecoder`.

    Example:
        >>> net = EspMedSam({"name": "timm", "model": "mobilenetv2_100"})
        >>> net(torch.zeros(1, 3, 64, 96), torch.tensor([0])).shape[-2:]
        torch.Size([64, 96])
    """

    presence_scale: Tensor
    presence_shift: Tensor

    def __init__(
        self,
        encoder: ImageEncoder | Mapping[str, Any],
        targets: Sequence[Target] | Sequence[dict[str, Any]] = TARGETS,
        *,
        patch_per_target: bool = True,
        prompt_mode: str = "soft",
        decoder: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        first = targets[0]
        table = tuple(cast(Sequence[Target], targets))
        if isinstance(first, dict):
            table = targets_from_json(cast(Sequence[dict[str, Any]], targets))
        self.targets: tuple[Target, ...] = table
        self.modalities = tuple(dict.fromkeys(t.modality for t in table))
        if not isinstance(encoder, ImageEncoder):
            encoder = build_encoder(**{"modalities": len(self.modalities), **encoder})
        self.encoder = encoder
        width = encoder.embed_channels
        self.prompter = SelfPatchPrompter(
            width, patches=len(table) if patch_per_target else 1, prompt_mode=prompt_mode
        )
        self.patch_per_target = patch_per_target
        self.point_box = PointBoxPrompter(width)
        self.decoder = QueryDecoupledDecoder(
            len(table), embed_dim=width, skip_channels=encoder.skip_channels, **(decoder or {})
        )
        self.register_buffer("presence_scale", torch.ones(len(table)))
        self.register_buffer("presence_shift", torch.zeros(len(table)))

    def targets_of(self, modality: int) -> Tensor:
        """Indices (T_m,) into `targets` of those that belong to a modality."""
        name = self.modalities[modality]
        rows = [i for i, t in enumerate(self.targets) if t.modality == name]
        return torch.tensor(rows, device=self.presence_scale.device)

    def encode(self, image: Tensor, modality: Tensor) -> Encoded:
        """Images (B, 3, H, W) and modality indices (B,) -> `Encoded`.

        Raises:
            ShapeError: H or W is not a multiple of the encoder's `size_divisor`, or not one index an image.
        """
        divisor = self.encoder.size_divisor
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % divisor or image.shape[3] % divisor:
            raise ShapeError(
                f"EspMedSam.encode: image has shape {tuple(image.shape)}, expected (B, 3, H, W) with H and W multiples "
                f"of {divisor}. Apply the model's ImageSpec first."
            )
        if modality.shape != image.shape[:1]:
            raise ShapeError(
                f"EspMedSam.encode: modality has shape {tuple(modality.shape)}, expected ({len(image)},). "
                "Give one index an image."
            )
        return cast(Encoded, self.encoder(image, modality))

    def decode(
        self,
        encoded: Encoded,
        modality: int,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Decoded:
        """Masks of one modality's targets for an encoded batch.

        Args:
            encoded: what `encode` returned, all images of this modality.
            modality: index into `modalities`.
            points: (B, N, 2), (x, y) in model pixels.
            labels: (B, N), 1 inside, 0 outside, -1 padding.
            boxes: (B, 4), (x0, y0, x1, y1) in model pixels.
            masks: mask logits (B, 1, h', w') of an earlier round; they take the place of the self-prompt.
        """
        embedding = encoded.embedding
        height, width = embedding.shape[-2:]
        active = self.targets_of(modality)
        prompt = self.prompter(embedding, active if self.patch_per_target else None)
        dense = prompt.dense if masks is None else self.point_box.dense(masks, (height, width))
        sparse = None
        if points is not None or boxes is not None:
            frame = (height * self.encoder.stride, width * self.encoder.stride)
            sparse = self.point_box(points, labels, boxes, frame)
        position = self.point_box.position(height, width)
        found = self.decoder(embedding + dense, encoded.skips, position, active, sparse)
        calibrated = found.presence * self.presence_scale[active] + self.presence_shift[active]
        return Decoded(
            found.mask_logits,
            found.quality.sigmoid(),
            calibrated.sigmoid(),
            prompt.patch_logits,
            found.presence,
        )

    def forward(self, image: Tensor, modality: Tensor | int | None = None) -> Tensor:
        """Mask logits of all targets at image size, (B, 3, H, W) -> (B, T, H, W).

        Args:
            image: normalised images.
            modality: index of the modality (B,), or one for all; default the first. Targets of other modalities
                get a logit of -20.
        """
        index = torch.as_tensor(0 if modality is None else modality, device=image.device)
        index = index.long().expand(image.shape[0]) if index.ndim == 0 else index.long()
        encoded = self.encode(image, index)
        out = image.new_full((image.shape[0], len(self.targets), *image.shape[-2:]), ABSENT_LOGIT)
        for m in torch.unique(index).tolist():
            rows = torch.nonzero(index == m).flatten()
            part = Encoded(encoded.embedding[rows], tuple(s[rows] for s in encoded.skips))
            logits = self.decode(part, m).mask_logits
            logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
            out[rows[:, None], self.targets_of(m)] = logits.to(out.dtype)
        return out
