# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a student learns from a promptable teacher beside its embeddings: its masks' logits, and where it looks.

"EfficientMedSAM" (only the abstract is public) distils by logits and saliency; the readings of saliency are five.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.perceptual import label_boxes
from monai_effsam.engines.teacher import Kept
from monai_effsam.engines.teacher_maps import last_norm, mask_score
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.losses import BernoulliKlLoss, SaliencyTransferLoss
from monai_effsam.losses.saliency_maps import activation_map, grad_cam, input_gradient, token_attention
from monai_effsam.networks.encoders import Encoded, ImageEncoder
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec

__all__ = [
    "TEACHER_MAPS",
    "DistillationTerms",
    "Saliency",
    "Seen",
    "build_terms",
    "kept_maps",
    "watched_encoder",
]

Saliency = Literal["none", "activation", "grad_cam", "input_gradient", "rollout", "token"]
"""Where a network looks. `activation`: energy of what enters the last channel norm. `grad_cam` and `input_gradient`:
what raises the masks, in the embedding and in the picture. `rollout`: attention of the teacher's global blocks, against
the student's activation. `token`: where the mask token of the decoder looks."""

TEACHER_MAPS: Mapping[str, Kept] = {
    "activation": "saliency",
    "input_gradient": "gradient",
    "rollout": "rollout",
}
"""Saliency -> the map that a teacher must keep for it; the others are made of its embedding."""


def kept_maps(saliency: str) -> tuple[Kept, ...]:
    """What a teacher must keep beside its embedding for the student's saliency."""
    return (TEACHER_MAPS[saliency],) if saliency in TEACHER_MAPS else ()


class Seen(NamedTuple):
    """A student's pass over a batch.

    Attributes:
        embedding: (B, C, h, w).
        image: what it was made of; takes a gradient where `input_gradient` is wanted.
        energy: (B, h, w), its activation map, where that is wanted.
    """

    embedding: Tensor
    image: Tensor
    energy: Tensor | None


class DistillationTerms(nn.Module):
    """Logits and saliency of one box an image: that of all that is labelled, or of the middle of the frame.

    Both decoders are frozen copies, and read the embeddings on the student's grid, in its frame.

    Args:
        student: whose decoder reads its own embeddings.
        teacher: whose decoder reads its.
        spec: of the student.
        logits: weight of the Bernoulli KL divergence of the mask logits.
        saliency: see `Saliency`.
        saliency_weight: of it.
        temperature: of the logits.
    """

    def __init__(
        self,
        student: PromptableSam,
        teacher: PromptableSam,
        spec: ImageSpec,
        *,
        logits: float = 0.0,
        saliency: Saliency = "none",
        saliency_weight: float = 0.25,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.size, self.saliency = spec.size, saliency
        self.weights = {"logits": logits, "saliency": saliency_weight if saliency != "none" else 0.0}
        self.student, self.teacher = (_decoder_of(network, spec) for network in (student, teacher))
        self.divergence, self.transfer = BernoulliKlLoss(temperature), SaliencyTransferLoss()

    def train(self, mode: bool = True) -> DistillationTerms:
        """As of any module, but both decoders stay in eval mode."""
        super().train(mode)
        self.student.eval()
        self.teacher.eval()
        return self

    def forward(self, seen: Seen, batch: ViewBatch) -> dict[str, Tensor]:
        """The raw terms whose weight is not 0."""
        boxes = label_boxes(batch.label, self.size).to(seen.embedding)[:, None]
        target = batch.target.detach().requires_grad_(self.saliency == "grad_cam")
        ours = _answer(self.student, seen.embedding, boxes)
        with torch.set_grad_enabled(self.saliency == "grad_cam"):
            theirs = _answer(self.teacher, target, boxes)
        found = {}
        if self.weights["logits"]:
            valid = F.interpolate(batch.valid, ours.logits.shape[-2:])[:, 0]
            found["logits"] = self.divergence(ours.logits, theirs.logits.detach(), valid)
        if self.weights["saliency"]:
            pair = self._maps(seen, batch, target, ours, theirs)
            found["saliency"] = self.transfer(*(one * batch.valid[:, 0] for one in pair))
        return found

    def _maps(
        self, seen: Seen, batch: ViewBatch, target: Tensor, ours: _Answer, theirs: _Answer
    ) -> tuple[Tensor, Tensor]:
        """Saliency of student and teacher, (B, h, w) each, on one grid."""
        grid = (batch.valid.shape[2], batch.valid.shape[3])
        if self.saliency == "grad_cam":
            mine = grad_cam(mask_score(ours.logits), seen.embedding, differentiable=True)
            return mine, grad_cam(mask_score(theirs.logits), target)
        if self.saliency == "token":
            mine, wanted = (token_attention(one.query, one.key, grid, one.heads) for one in (ours, theirs))
            return mine, wanted
        if self.saliency == "input_gradient":
            mine = input_gradient(mask_score(ours.logits), seen.image, differentiable=True)
        else:
            mine = cast(Tensor, seen.energy)
        return F.adaptive_avg_pool2d(mine[:, None], grid)[:, 0], batch.saliency


def build_terms(
    student: PromptableSam, teacher: PromptableSam | EspMedSam, spec: ImageSpec, recipe: Any
) -> DistillationTerms | None:
    """The terms that a recipe names; None for none.

    Args:
        student: to be trained.
        teacher: promptable, of any family.
        spec: of the student.
        recipe: a `DistillationRecipe`.

    Raises:
        UnknownNameError: no such saliency.
        UsageError: a self-prompting teacher, which answers no boxes, or an encoder without the norm that is needed.
    """
    if recipe.saliency not in get_args(Saliency):
        raise UnknownNameError("saliency", recipe.saliency, get_args(Saliency))
    if not recipe.logits and recipe.saliency == "none":
        return None
    if not isinstance(teacher, PromptableSam):
        raise UsageError(
            "logits and saliency need a promptable teacher, found a self-prompting one. Choose another teacher, or "
            "leave them out."
        )
    if recipe.saliency in ("activation", "rollout"):
        last_norm(student.image_encoder)
    return DistillationTerms(
        student,
        teacher,
        spec,
        logits=recipe.logits,
        saliency=recipe.saliency,
        saliency_weight=recipe.saliency_weight,
        temperature=recipe.temperature,
    )


def watched_encoder(encoder: ImageEncoder, batch: ViewBatch, saliency: str) -> Seen:
    """A student's pass over a batch, with what its saliency is made of."""
    image = batch.image
    if saliency == "input_gradient":
        image = image.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention cannot be differentiated twice
            return Seen(encoder(image, batch.modality).embedding, image, None)
    if saliency not in ("activation", "rollout"):
        embedding = encoder(image, batch.modality).embedding
        if saliency == "grad_cam" and not embedding.requires_grad:  # of an encoder that is only measured
            embedding.requires_grad_()
        return Seen(embedding, image, None)
    energy: list[Tensor] = []
    hook = last_norm(encoder).register_forward_pre_hook(
        lambda _, args: energy.append(activation_map(args[0]))
    )
    try:
        return Seen(encoder(image, batch.modality).embedding, image, energy[-1])
    finally:
        hook.remove()


class _Answer(NamedTuple):
    """Mask logits (B, h', w') of one box an image; query (B, c), keys (B, h w, c) of the last attention."""

    logits: Tensor
    query: Tensor
    key: Tensor
    heads: int


def _answer(network: PromptableSam, embedding: Tensor, boxes: Tensor) -> _Answer:
    attention = cast(Any, network.mask_decoder.transformer).final_attn_token_to_image
    with _outputs(attention.q_proj) as queries, _outputs(attention.k_proj) as keys:
        masks = network.decode(Encoded(embedding), boxes=boxes).mask_logits
    # after the token of the quality comes that of the single mask
    return _Answer(masks[:, 0, 0], queries[0][:, 1], keys[0], int(attention.num_heads))


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module gives while it is listened to."""
    heard: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _args, output: heard.append(output))
    try:
        yield heard
    finally:
        hook.remove()


class _NoEncoder(ImageEncoder):
    """What a decoder must know of the encoder whose embeddings it is given."""

    def __init__(self, embed_channels: int, stride: int) -> None:
        super().__init__()
        self.embed_channels, self.stride = embed_channels, stride


def _decoder_of(network: PromptableSam, spec: ImageSpec) -> PromptableSam:
    """A frozen copy of a network without its encoder, prompted in the student's frame."""
    encoder = network.image_encoder
    network.image_encoder = _NoEncoder(encoder.embed_channels, spec.stride)
    try:
        alone = copy.deepcopy(network)
    finally:
        network.image_encoder = encoder
    alone.prompt_size = None
    return alone.requires_grad_(False).eval()
