# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Segment Anything with an encoder of ours: points, boxes and masks in, masks out, keys as in SAM's checkpoints.

"Segment Anything", Kirillov et al., arXiv 2304.02643. Prompt encoder and mask decoder are segment-anything's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import ShapeError, UsageError
from monai_effsam.networks.encoders import Encoded, ImageEncoder, build_encoder
from monai_effsam.networks.foreign import import_segment_anything
from monai_effsam.networks.prompts.drawn import draw_prompts

__all__ = ["PromptableSam", "PromptedMasks"]

_MASK_CHANNELS = 16  # of the branch that reads mask prompts
_LOW_RES = 4  # mask cells a step of the embedding's grid


class PromptedMasks(NamedTuple):
    """Masks of N prompts on each of B images; M is 3 with `multimask`, else 1.

    Attributes:
        mask_logits: (B, N, M, 4 h, 4 w), four times as fine as the embedding's grid.
        quality: the network's estimate of each mask's IoU, (B, N, M); a regression, so it may leave 0..1.
    """

    mask_logits: Tensor
    quality: Tensor


class PromptableSam(nn.Module):
    """SAM at any model size: the grid is what the encoder gives, 64 x 64 in SAM, 32 x 32 or 16 x 16 in smaller ones.

    Keys are `image_encoder.*`, `prompt_encoder.*` and `mask_decoder.*` as in SAM's checkpoints. segment-anything's
    decoder repeats the embedding for each row of prompts, which fits one image only; here B images take N prompts
    each in one pass.

    Args:
        image_encoder: an image encoder without modality controllers, or the options of `build_encoder`.
        prompt_size: side of the square in which points and boxes are given [px]; None for the encoder's image.
        mlp_dim: hidden width of the decoder's transformer; 2048 in SAM.
        decoder_depth: blocks of that transformer; 2 in SAM. Its width is the embedding's.
        drawn: points and boxes are also drawn as a mask prompt (`draw_prompts`); SAM's are not.

    Example:
        >>> net = PromptableSam({"name": "tiny_vit"})
        >>> boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [0.0, 0.0, 9.0, 9.0]]])
        >>> net(torch.zeros(1, 3, 64, 64), boxes=boxes).mask_logits.shape
        torch.Size([1, 2, 1, 16, 16])
    """

    MLP_DIM = 2048
    """Hidden width of the transformer in SAM's decoder."""
    DECODER_DEPTH = 2
    """Its blocks."""

    def __init__(
        self,
        image_encoder: ImageEncoder | Mapping[str, Any],
        *,
        prompt_size: int | None = None,
        mlp_dim: int = MLP_DIM,
        decoder_depth: int = DECODER_DEPTH,
        drawn: bool = False,
    ) -> None:
        """Build; no weights are loaded."""
        super().__init__()
        if not isinstance(image_encoder, ImageEncoder):
            image_encoder = build_encoder(**{"modalities": 0, **image_encoder})
        modeling = import_segment_anything().modeling
        width = image_encoder.embed_channels
        self.prompt_size, self.drawn = prompt_size, drawn
        self.image_encoder = image_encoder
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(1, 1),  # both sizes are told at each call, see `decode`
            input_image_size=(1, 1),
            mask_in_chans=_MASK_CHANNELS,
        )
        self.mask_decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=decoder_depth, embedding_dim=width, mlp_dim=mlp_dim, num_heads=8
            ),
            transformer_dim=width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        )

    def prompt_frame(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the square that prompts are given in, for an embedding of (height, width) cells [px]."""
        if self.prompt_size is not None:
            return self.prompt_size, self.prompt_size
        return height * self.image_encoder.stride, width * self.image_encoder.stride

    def encode(self, image: Tensor, modality: Tensor | None = None) -> Encoded:
        """Images (B, 3, H, W), and modality indices (B,) if the encoder has controllers -> `Encoded`.

        Raises:
            ShapeError: H or W is none that the encoder takes.
        """
        divisor = self.image_encoder.size_divisor
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % divisor or image.shape[3] % divisor:
            raise ShapeError(
                f"PromptableSam.encode: image has shape {tuple(image.shape)}, expected (B, 3, H, W) with H and W "
                f"multiples of {divisor}. Apply the model's ImageSpec first."
            )
        if modality is None:
            modality = torch.zeros(len(image), dtype=torch.int64, device=image.device)
        return cast(Encoded, self.image_encoder(image, modality))

    def decode(
        self,
        encoded: Encoded,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> PromptedMasks:
        """Masks of N prompts on each of B encoded images; a prompt is points, a box, a mask, or some of them.

        Args:
            encoded: what `encode` returned.
            points: (B, N, P, 2), (x, y) in pixels of the prompt frame.
            labels: (B, N, P), 1 inside, 0 outside, -1 padding; given with points.
            boxes: (B, N, 4), (x0, y0, x1, y1) in pixels of the prompt frame.
            masks: mask logits (B, N, h', w') of an earlier round, over the encoder's image.
            multimask: three masks a prompt, for prompts that may mean several things, instead of one.

        Raises:
            UsageError: no prompt at all, or points without labels.
            ShapeError: prompts of another shape, or of unequal B or N.
        """
        given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
        batch, _, height, width = encoded.embedding.shape
        count = _prompts_an_image({k: v for k, v in given.items() if v is not None}, batch)
        # segment-anything keeps both sizes as attributes, and reads them in the next line only
        self.prompt_encoder.image_embedding_size = (height, width)
        self.prompt_encoder.input_image_size = self.prompt_frame(height, width)
        rows = encoded.embedding.repeat_interleave(count, 0)
        earlier = None if masks is None else _fitted(masks, (_LOW_RES * height, _LOW_RES * width))
        if self.drawn:
            frame = rows.new_tensor(self.prompt_frame(height, width)[::-1])
            tokens, kinds = _tokens(rows, points, labels, boxes)
            earlier = draw_prompts(tokens, kinds, frame, earlier, rows)
        sparse, dense = self.prompt_encoder(
            points=None if points is None or labels is None else (points.flatten(0, 1), labels.flatten(0, 1)),
            boxes=None if boxes is None else boxes.flatten(0, 1),
            masks=earlier,
        )
        # the decoder repeats its embedding for each of the B * N rows and adds `dense`: given nothing to repeat
        # and the sum, it takes rows of different images
        rows = rows + dense
        logits, quality = self.mask_decoder(
            image_embeddings=rows.new_zeros(1, rows.shape[1], 1, 1),
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=rows,
            multimask_output=multimask,
        )
        return PromptedMasks(logits.unflatten(0, (batch, count)), quality.unflatten(0, (batch, count)))

    def forward(
        self,
        image: Tensor,
        modality: Tensor | None = None,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> PromptedMasks:
        """`encode`, then `decode`; see there for the shapes."""
        encoded = self.encode(image, modality)
        return self.decode(
            encoded, points=points, labels=labels, boxes=boxes, masks=masks, multimask=multimask
        )


def _tokens(
    rows: Tensor, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Points and boxes of each row as one list, (R, P, 2) and (R, P), a box being its corners, labelled 2 and 3."""
    places, kinds = [rows.new_zeros(len(rows), 1, 2)], [torch.full((len(rows), 1), -1, device=rows.device)]
    if boxes is not None:
        places.append(boxes.reshape(-1, 2, 2))
        kinds.append(torch.tensor([[2, 3]], device=rows.device).expand(len(rows), -1))
    if points is not None and labels is not None:
        places.append(points.flatten(0, 1))
        kinds.append(labels.flatten(0, 1))
    return torch.cat(places, 1), torch.cat(kinds, 1)


def _fitted(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask prompts (B, N, h', w') as (B * N, 1, *size)."""
    rows = masks.flatten(0, 1)[:, None]
    if rows.shape[-2:] != size:
        rows = F.interpolate(rows, size=size, mode="bilinear", align_corners=False)
    return rows


_SHAPES: Mapping[str, tuple[int, int | None, str]] = {
    "points": (4, 2, "(B, N, P, 2)"),
    "labels": (3, None, "(B, N, P)"),
    "boxes": (3, 4, "(B, N, 4)"),
    "masks": (4, None, "(B, N, h, w)"),
}
"""Kind of prompt -> dimensions, size of the last one, and both in words."""


def _prompts_an_image(given: Mapping[str, Tensor], batch: int) -> int:
    """N, if the prompts can be used with a batch of B images."""
    if not given:
        raise UsageError("PromptableSam.decode: no prompt given, expected points, boxes or masks. Give one.")
    if ("points" in given) != ("labels" in given):
        raise UsageError(
            "PromptableSam.decode: points or labels are missing, expected both or neither. Label each point."
        )
    for name, value in given.items():
        dimensions, last, words = _SHAPES[name]
        if value.ndim != dimensions or len(value) != batch or (last is not None and value.shape[-1] != last):
            raise ShapeError(
                f"PromptableSam.decode: {name} have shape {tuple(value.shape)}, expected {words} with B = {batch}."
                " Give every image its N prompts."
            )
    counts = {name: value.shape[1] for name, value in given.items()}
    if len(set(counts.values())) != 1:
        raise ShapeError(
            f"PromptableSam.decode: prompts an image are {counts}, expected one N. Pad points with label -1."
        )
    if "points" in given and given["points"].shape[2] != given["labels"].shape[2]:
        raise ShapeError(
            f"PromptableSam.decode: labels have shape {tuple(given['labels'].shape)}, expected one a point, "
            f"{tuple(given['points'].shape[:-1])}. Label each point."
        )
    return next(iter(counts.values()))
