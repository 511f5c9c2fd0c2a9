# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Query-decoupled modality decoder (QDMD): one learned query and one hyper-MLP a target, one shared transformer.

"ESP-MedSAM", Xu et al., arXiv 2407.14153. Only the queries of the image's modality enter the transformer, so
adding a modality leaves the others' masks bit-equal; the released code lets all queries see each other and
shares one hyper-MLP (`query_mode="joint"`, `shared_hyper_mlp=True`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monai_effsam.networks.decoders.upscaling import SkipUpscaling, plain_upscaling
from monai_effsam.networks.foreign import import_segment_anything

__all__ = ["QUERY_MODES", "HyperMlp", "QueryDecoded", "QueryDecoupledDecoder"]

QUERY_MODES: tuple[str, ...] = ("modality", "single", "joint")


class QueryDecoded(NamedTuple):
    """The decoder's answer for the T_m targets asked.

    Attributes:
        mask_logits: (B, T_m, H', W').
        quality: the network's estimate of the mask's IoU, (B, T_m), before the sigmoid.
        presence: whether the target is there at all, (B, T_m), before the sigmoid.
    """

    mask_logits: Tensor
    quality: Tensor
    presence: Tensor


class HyperMlp(nn.Module):
    """segment-anything's three-layer MLP, same keys (`layers.0.weight` ...)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = (inputs, hidden, hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        x = torch.relu(self.layers[0](x))
        return self.layers[2](torch.relu(self.layers[1](x)))


class QueryDecoupledDecoder(nn.Module):
    """Two-way transformer over image tokens and target queries; masks are dot products with the fine map.

    Args:
        targets: number of targets T.
        embed_dim: C of the embedding.
        skip_channels: channels of the encoder's skips; empty for segment-anything's plain upscaling.
        channels: widths of the upscaling with skips.
        mlp_dim: hidden width of the transformer's MLP.
        depth: blocks of the transformer.
        hyper_dim: hidden width of the hyper-MLPs.
        query_mode: which queries share a pass: those of the `modality`, each target alone (`single`), or all of
            them (`joint`, the release).
        shared_hyper_mlp: one hyper-MLP for all targets (the release).
        spare_queries: queries that take part and are never read (the release has one, in joint mode).
        estimates: build the heads for quality and presence (the release has none).

    Raises:
        ValueError: unknown `query_mode`.
    """

    def __init__(  # noqa: PLR0913  its options are those of the papers
        self,
        targets: int,
        *,
        embed_dim: int = 256,
        skip_channels: Sequence[int] = (),
        channels: Sequence[int] = (96, 48, 24),
        mlp_dim: int = 2048,
        depth: int = 2,
        hyper_dim: int = 256,
        query_mode: str = "modality",
        shared_hyper_mlp: bool = False,
        spare_queries: int = 0,
        estimates: bool = True,
    ) -> None:
        super().__init__()
        if query_mode not in QUERY_MODES:
            raise ValueError(
                f"QueryDecoupledDecoder: query_mode is '{query_mode}', expected one of {QUERY_MODES}."
            )
        self.query_mode = query_mode
        self.targets = targets
        self.mask_query = nn.Embedding(targets + spare_queries, embed_dim)
        self.transformer = import_segment_anything().modeling.TwoWayTransformer(
            depth=depth, embedding_dim=embed_dim, mlp_dim=mlp_dim, num_heads=8
        )
        fine = channels[-1] if skip_channels else embed_dim // 8
        self.output_upscaling: nn.Module = (
            SkipUpscaling(embed_dim, skip_channels, channels) if skip_channels else plain_upscaling(embed_dim)
        )
        self.has_skips = bool(skip_channels)
        self.output_hypernetworks_mlps = nn.ModuleList(
            HyperMlp(embed_dim, hyper_dim, fine) for _ in range(1 if shared_hyper_mlp else targets)
        )
        self.estimates = (
            nn.ModuleDict({name: HyperMlp(embed_dim, embed_dim // 2, 1) for name in ("quality", "presence")})
            if estimates
            else None
        )

    def forward(
        self,
        embedding: Tensor,
        skips: Sequence[Tensor],
        position: Tensor,
        active: Tensor,
        sparse: Tensor | None = None,
    ) -> QueryDecoded:
        """Masks of the active targets.

        Args:
            embedding: image embedding with the dense prompt added, (B, C, h, w).
            skips: the encoder's finer maps, coarse to fine.
            position: position code of the grid, (1, C, h, w).
            active: indices (T_m,) int64 of the targets wanted; in `modality` mode these share the pass.
            sparse: embedded points and boxes of a user, (B, N, C), or None.

        Returns:
            `QueryDecoded`; without heads its estimates are zeros.
        """
        if self.query_mode == "single" and len(active) > 1:
            parts = [self._decode(embedding, skips, position, row[None], sparse) for row in active]
            return QueryDecoded(*(torch.cat(column, 1) for column in zip(*parts, strict=True)))
        return self._decode(embedding, skips, position, active, sparse)

    def _decode(
        self,
        embedding: Tensor,
        skips: Sequence[Tensor],
        position: Tensor,
        active: Tensor,
        sparse: Tensor | None,
    ) -> QueryDecoded:
        batch, channels, height, width = embedding.shape
        joint = self.query_mode == "joint"
        queries = self.mask_query.weight if joint else self.mask_query.weight[active]
        count = len(queries)
        queries = queries.expand(batch, -1, -1)
        if sparse is not None:
            queries = torch.cat([queries, sparse], 1)
        tokens, image = self.transformer(embedding, position.expand(batch, -1, -1, -1), queries)
        tokens = tokens[:, :count]
        if joint:
            tokens = tokens[:, active]
        image = image.transpose(1, 2).reshape(batch, channels, height, width)
        fine = self.output_upscaling(image, skips) if self.has_skips else self.output_upscaling(image)
        masks = torch.einsum("btc,bchw->bthw", self._weights(tokens, active), fine)
        if self.estimates is None:
            none = tokens.new_zeros(batch, len(active))
            return QueryDecoded(masks, none, none)
        return QueryDecoded(
            masks,
            self.estimates["quality"](tokens).squeeze(-1),
            self.estimates["presence"](tokens).squeeze(-1),
        )

    def _weights(self, tokens: Tensor, active: Tensor) -> Tensor:
        mlps = self.output_hypernetworks_mlps
        if len(mlps) == 1:
            return mlps[0](tokens)
        return torch.stack([mlps[int(t)](tokens[:, i]) for i, t in enumerate(active)], 1)
