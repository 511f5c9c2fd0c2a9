# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a distillation consists of, apart from teacher and data: the student, the stages, rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from monai_effsam.errors import UnknownNameError, UsageError

__all__ = ["DistillationRecipe", "StageName", "stage_names"]

StageName = Literal["encoder", "decoder", "joint"]
"""In the order in which they run."""


@dataclass(frozen=True)
class DistillationRecipe:
    """Everything that decides what a distillation gives, apart from the data; stored with the model.

    Args:
        teacher: sha256 of its weights.
        encoder: options of `build_encoder` of the student.
        spec: fields of its `ImageSpec`.
        stages: `encoder` learns the teacher's embeddings, `decoder` is tuned on labels, `joint` trains all on labels.
        perceptual: of the first stage, see `build_perceptual`.
        weight: of the perceptual term; None to let the first batch set it.
        embedding: weight of the embedding's mean squared error, in the first stage.
        logits: weight of the mask logits' divergence there.
        temperature: of the logits.
        saliency: what the student's is, see `distilling_terms.Saliency`.
        saliency_weight: of it.
        inherit: the student's encoder starts from the teacher's; or from a pretrained trunk, named with its sha256.
        decoder_first: tune the decoder on the teacher's embeddings rather than the student's.
        views: number of views of each picture.
        epochs: of each stage.
        batch: views a batch.
        rate: learning rate of the encoder's new layers, and of a joint stage that follows no other.
        trunk_rate: of its pretrained trunk.
        decoder_rate: of the decoder.
        joint_rate: of a joint stage after others.
        weight_decay: of AdamW.
        ema: momentum of the running average of the weights that is shipped.
        held_out: share of the groups of pictures that is watched and not trained on.
        patience: epochs without a better one after which a stage ends.
        pictures: how many there are.
        view_seed: of the views; runs with the same one can share a cache.
        seed: of everything else that is random.

    Raises:
        UsageError: the encoder's stage has nothing to learn from.
    """

    teacher: str
    encoder: dict[str, Any]
    spec: dict[str, Any]
    stages: tuple[StageName, ...] = ("encoder",)
    perceptual: str = "pyramid"
    weight: float | None = None
    embedding: float = 1.0
    logits: float = 0.0
    temperature: float = 1.0
    saliency: str = "none"
    saliency_weight: float = 0.25
    inherit: bool | str = False
    decoder_first: bool = False
    views: int = 4
    epochs: dict[str, int] = field(default_factory=lambda: {"encoder": 30, "decoder": 10, "joint": 10})
    batch: int = 8
    rate: float = 1e-3
    trunk_rate: float = 5e-4
    decoder_rate: float = 2e-4
    joint_rate: float = 1e-4
    weight_decay: float = 0.01
    ema: float = 0.003
    held_out: float = 0.1
    patience: int = 5
    pictures: int = 0
    view_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        terms = (
            self.embedding,
            self.perceptual != "none",
            self.logits,
            self.saliency != "none" and self.saliency_weight,
        )
        if "encoder" in self.stages and not any(terms):
            raise UsageError(
                "stage encoder: every term has weight 0, expected embedding, perceptual, logits or saliency. Add one."
            )


def stage_names(text: str) -> tuple[StageName, ...]:
    """Stages named in a list with commas, in the order in which they run.

    Raises:
        UnknownNameError: a name that is no stage.
        UsageError: none at all.
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in get_args(StageName):
            raise UnknownNameError("stage", name, get_args(StageName))
    if not named:
        raise UsageError(f"stages are '{text}', expected some of {', '.join(get_args(StageName))}.")
    return tuple(stage for stage in get_args(StageName) if stage in named)
