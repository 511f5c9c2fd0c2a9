# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`EspMedSam` as two graphs that an exporter can trace: no loop over modalities, targets or prompts.

Modality and targets become indices that gather rows of stacked weights, so one encoder and one decoder serve every
modality. Prompts come as tokens: points with segment-anything's labels, the corners of a box among them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.errors import WeightsError
from monai_effsam.inference.export.prompt_tokens import grid_code, prompt_embedding
from monai_effsam.inference.export.tracing import trace_graph
from monai_effsam.inference.runtimes.contract import RawDecoding
from monai_effsam.networks.blocks.modality_controller import ControllerBank
from monai_effsam.networks.blocks.modality_experts import ModalityExperts
from monai_effsam.networks.decoders.query_decoupled import HyperMlp
from monai_effsam.networks.nets import EspMedSam

__all__ = ["DecoderGraph", "EncoderGraph", "write_esp_medsam"]


def write_esp_medsam(network: EspMedSam, size: int, folder: Path) -> dict[str, Path]:
    """Write `encoder.onnx` and `decoder.onnx`, dynamic in batch, image size, targets and prompts.

    Args:
        network: in eval mode.
        size: side of the example image [px].
        folder: to write to.

    Returns:
        File of each role.

    Raises:
        WeightsError: a network that cannot be exported.
    """
    batch = 2  # a batch of one would be traced as if it could be nothing else
    encoder, decoder = EncoderGraph(network).eval(), DecoderGraph(network).eval()
    image, modality = torch.randn(batch, 3, size, size), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        embedding, *skips = encoder(image, modality)
    names = ["embedding", *(f"skip_{i}" for i in range(len(skips)))]
    maps = {name: {0: "batch", 2: f"height_{i}", 3: f"width_{i}"} for i, name in enumerate(names)}
    trace_graph(
        encoder,
        (image, modality),
        folder / "encoder.onnx",
        ["image", "modality"],
        names,
        {"image": {0: "batch", 2: "height", 3: "width"}, **maps},
    )
    points, labels = torch.rand(batch, 3, 2) * size, torch.tensor([[1, 2, 3]]).repeat(batch, 1)
    outputs = {"mask_logits": {0: "batch", 1: "targets", 2: "h", 3: "w"}}
    outputs |= {name: {0: "batch", 1: "targets"} for name in ("quality", "presence")}
    trace_graph(
        decoder,
        (embedding, skips, network.targets_of(0), points, labels),
        folder / "decoder.onnx",
        [*names, "active", "points", "labels"],
        list(RawDecoding._fields),
        {
            **maps,
            "active": {0: "targets"},
            "points": {0: "batch", 1: "prompts"},
            "labels": {0: "batch", 1: "prompts"},
            **outputs,
        },
    )
    return {"encoder": folder / "encoder.onnx", "decoder": folder / "decoder.onnx"}


class EncoderGraph(nn.Module):
    """Image (B, 3, H, W) and modality (1,) int64 -> embedding and skips.

    Args:
        network: left as it is; its encoder is copied.

    Raises:
        WeightsError: an encoder whose controllers cannot be gathered.
    """

    def __init__(self, network: EspMedSam) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(network.encoder)
        if any(isinstance(module, ControllerBank) and len(module) for module in self.encoder.modules()):
            raise WeightsError(
                f"export: encoder {type(self.encoder).__name__} has a controller in every block, expected a timm "
                "encoder. Export a model with one."
            )
        for module in list(self.encoder.modules()):
            for name, child in module.named_children():
                if isinstance(child, ModalityExperts):
                    setattr(module, name, _GatheredExperts(child))

    def forward(self, image: Tensor, modality: Tensor) -> tuple[Tensor, ...]:
        """All images of one modality."""
        encoded = self.encoder(image, modality.expand(image.shape[0]))
        return encoded.embedding, *encoded.skips


class DecoderGraph(nn.Module):
    """Embedding, skips, active targets and prompt tokens -> mask logits, quality, presence.

    Args:
        network: left as it is; shares its weights.

    Raises:
        WeightsError: a decoder whose queries all see each other (the release's), which no index can part.
    """

    def __init__(self, network: EspMedSam) -> None:
        super().__init__()
        self.network = network
        decoder = network.decoder
        if decoder.query_mode != "modality" or decoder.estimates is None:
            raise WeightsError(
                f"export: decoder has query_mode '{decoder.query_mode}', expected 'modality' with estimates. "
                "Export a model trained by this package."
            )
        self.hyper = _GatheredMlp(cast(Sequence[HyperMlp], decoder.output_hypernetworks_mlps))

    def forward(
        self, embedding: Tensor, skips: Sequence[Tensor], active: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of the active targets.

        Args:
            embedding: (B, C, h, w).
            skips: the encoder's finer maps.
            active: rows (T_m,) int64 of the target table.
            points: (B, N, 2) in model pixels; N may be 0.
            labels: (B, N) int64: -1 none, 0 outside, 1 inside, 2 and 3 the corners of a box.

        Returns:
            (B, T_m, h', w'), (B, T_m) and (B, T_m).
        """
        net, decoder = self.network, self.network.decoder
        prompter, stride = net.point_box.encoder, net.encoder.stride
        position = grid_code(prompter.pe_layer, embedding)
        sides = (embedding.shape[3] * stride, embedding.shape[2] * stride)
        size = torch.stack([torch.as_tensor(side) for side in sides]).to(points.dtype)
        queries = decoder.mask_query.weight[active].unsqueeze(0).expand(embedding.shape[0], -1, -1)
        tokens = torch.cat([queries, prompt_embedding(prompter, points, labels, size)], 1)
        dense = embedding + self._self_prompt(embedding, active)
        tokens, image = decoder.transformer(dense, position.expand(embedding.shape[0], -1, -1, -1), tokens)
        tokens = tokens[:, : active.shape[0]]
        image = image.transpose(1, 2).reshape(embedding.shape)
        fine = (
            decoder.output_upscaling(image, skips) if decoder.has_skips else decoder.output_upscaling(image)
        )
        masks = torch.matmul(self.hyper(tokens, active), fine.flatten(2))
        masks = masks.reshape(masks.shape[0], masks.shape[1], fine.shape[2], fine.shape[3])
        heads = cast(nn.ModuleDict, decoder.estimates)
        quality, presence = (heads[name](tokens).squeeze(-1) for name in ("quality", "presence"))
        presence = presence * net.presence_scale[active] + net.presence_shift[active]
        return masks, quality.sigmoid(), presence.sigmoid()

    def _self_prompt(self, embedding: Tensor, active: Tensor) -> Tensor:
        """Dense self-prompt (B, C, h, w): every patch map is computed, those not in use count as empty."""
        prompter = self.network.prompter
        weights = prompter._weights(prompter.patch_decoder(embedding))
        if self.network.patch_per_target:
            rows = torch.arange(weights.shape[1], device=active.device)
            used = (rows.unsqueeze(1) == active.unsqueeze(0)).any(1).to(weights.dtype)
            weights = weights * used.view(1, -1, 1, 1)
        weights = F.interpolate(weights, scale_factor=2.0, mode="nearest")
        return cast(Tensor, prompter.dense_prompter(weights))


class _GatheredExperts(nn.Module):
    """`ModalityExperts` for one modality, whose weights are gathered by its index."""

    norm_weight: Tensor
    norm_bias: Tensor
    first_weight: Tensor
    first_bias: Tensor
    last_weight: Tensor
    last_bias: Tensor

    def __init__(self, experts: ModalityExperts) -> None:
        super().__init__()
        parts = [tuple(cast(nn.Sequential, expert)) for expert in experts.experts]
        norms, first, _, last = (cast(Sequence[nn.Linear], layer) for layer in zip(*parts, strict=True))
        for name, layers in (("norm", norms), ("first", first), ("last", last)):
            self.register_buffer(f"{name}_weight", torch.stack([layer.weight for layer in layers]).detach())
            self.register_buffer(f"{name}_bias", torch.stack([layer.bias for layer in layers]).detach())
        norm = cast(nn.LayerNorm, norms[0])
        self.channels, self.eps = norm.normalized_shape, norm.eps

    def forward(self, x: Tensor, modality: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ..., C)."""
        index = modality[0]
        x = F.layer_norm(x, self.channels, eps=self.eps) * self.norm_weight[index] + self.norm_bias[index]
        x = F.gelu(torch.matmul(x, self.first_weight[index].transpose(0, 1)) + self.first_bias[index])
        return torch.matmul(x, self.last_weight[index].transpose(0, 1)) + self.last_bias[index]


class _GatheredMlp(nn.Module):
    """One `HyperMlp` a target, gathered by row; a single one serves all."""

    def __init__(self, mlps: Sequence[HyperMlp]) -> None:
        super().__init__()
        self.is_shared = len(mlps) == 1
        for i in range(3):
            layers = [cast(nn.Linear, mlp.layers[i]) for mlp in mlps]
            self.register_buffer(f"weight_{i}", torch.stack([la.weight.t() for la in layers]).detach())
            self.register_buffer(f"bias_{i}", torch.stack([la.bias for la in layers]).detach())

    def forward(self, tokens: Tensor, active: Tensor) -> Tensor:
        """(B, T_m, C) -> (B, T_m, c)."""
        rows = active * 0 if self.is_shared else active
        x = tokens.unsqueeze(2)  # (B, T_m, 1, C)
        for i in range(3):
            weight, bias = getattr(self, f"weight_{i}")[rows], getattr(self, f"bias_{i}")[rows]
            x = torch.matmul(x, weight) + bias.unsqueeze(1)
            x = torch.relu(x) if i < 2 else x
        return x.squeeze(2)
