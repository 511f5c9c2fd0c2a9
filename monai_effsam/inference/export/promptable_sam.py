# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`PromptableSam` as two graphs that an exporter can trace: segment-anything's arithmetic, no masking by index."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from monai_effsam.inference.export.prompt_tokens import grid_code, prompt_embedding
from monai_effsam.inference.export.tracing import trace_graph
from monai_effsam.networks.encoders import ImageEncoder
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.networks.prompts.drawn import draw_prompts

__all__ = ["PlainEncoderGraph", "PromptedDecoderGraph", "write_promptable_sam"]


def write_promptable_sam(network: PromptableSam, size: int, folder: Path) -> dict[str, Path]:
    """Write `encoder.onnx` and `decoder.onnx`, dynamic in batch and in number of prompts and points.

    The image size is fixed: SAM's encoders compute their windows and positions for one.

    Args:
        network: in eval mode.
        size: side of its image [px].
        folder: to write to.

    Returns:
        File of each role.
    """
    encoder, decoder = PlainEncoderGraph(network.image_encoder).eval(), PromptedDecoderGraph(network).eval()
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        embedding = encoder(image)
    batch = {0: "batch"}
    files = {role: folder / f"{role}.onnx" for role in ("encoder", "decoder")}
    trace_graph(
        encoder, (image,), files["encoder"], ["image"], ["embedding"], {"image": batch, "embedding": batch}
    )
    rows = {0: "batch", 1: "prompts"}
    trace_graph(
        decoder,
        (
            embedding.expand(2, -1, -1, -1),
            torch.rand(2, 3, 2, 2) * size,
            torch.ones(2, 3, 2, dtype=torch.int64),
        ),
        files["decoder"],
        ["embedding", "points", "labels"],
        ["mask_logits", "quality"],
        {
            "embedding": batch,
            "points": {**rows, 2: "points"},
            "labels": {**rows, 2: "points"},
            "mask_logits": rows,
            "quality": rows,
        },
    )
    return files


class PlainEncoderGraph(nn.Module):
    """Image (B, 3, S, S) -> embedding (B, C, h, w), of an encoder without modalities.

    Args:
        encoder: left as it is.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """The embedding alone."""
        modality = torch.zeros(1, dtype=torch.int64, device=image.device)
        return cast(Tensor, self.encoder(image, modality).embedding)


class PromptedDecoderGraph(nn.Module):
    """Embedding and prompt tokens -> all four masks of each prompt, the single one first, and their quality.

    Args:
        network: left as it is; shares its weights.
    """

    def __init__(self, network: PromptableSam) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of N prompts on each of B images.

        Args:
            embedding: (B, C, h, w).
            points: (B, N, P, 2) in pixels of the prompt frame.
            labels: (B, N, P) int64: -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.

        Returns:
            (B, N, 4, 4 h, 4 w) and (B, N, 4).
        """
        net = self.network
        batch, count = points.shape[0], points.shape[1]
        height, width = embedding.shape[2], embedding.shape[3]
        frame = net.prompt_frame(height, width)
        size = torch.stack([torch.as_tensor(frame[1]), torch.as_tensor(frame[0])]).to(points.dtype)
        sparse = prompt_embedding(net.prompt_encoder, points.flatten(0, 1), labels.flatten(0, 1), size)
        rows = embedding.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 1)
        if net.drawn:
            picture = draw_prompts(points.flatten(0, 1), labels.flatten(0, 1), size, None, rows)
            rows = rows + net.prompt_encoder.mask_downscaling(picture)
        else:
            rows = rows + net.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masks, quality = self._predict(rows, grid_code(net.prompt_encoder.pe_layer, embedding), sparse)
        shape = (batch, count, masks.shape[1], masks.shape[2], masks.shape[3])
        return masks.reshape(shape), quality.reshape(batch, count, -1)

    def _predict(self, rows: Tensor, position: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """segment-anything's `predict_masks` for rows of their own images; it would repeat one image for all."""
        decoder = self.network.mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
        tokens = torch.cat([own.expand(rows.shape[0], -1, -1), sparse], 1)
        tokens, image = decoder.transformer(rows, position.expand(rows.shape[0], -1, -1, -1), tokens)
        fine = decoder.output_upscaling(image.transpose(1, 2).reshape(rows.shape))
        weights = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.matmul(torch.stack(weights, 1), fine.flatten(2))
        masks = masks.reshape(masks.shape[0], masks.shape[1], fine.shape[2], fine.shape[3])
        return masks, decoder.iou_prediction_head(tokens[:, 0])
