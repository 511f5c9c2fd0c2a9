# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of classifiers: what a run consists of, its step, and how sure its answers are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.engines.class_teacher import ClassGuide
from monai_effsam.engines.optimisation import Schedule
from monai_effsam.networks.nets.tic import TicClassifier
from monai_effsam.specs import ImageSpec

__all__ = [
    "Calibration",
    "ClassificationStep",
    "ClassifierRecipe",
    "calibrate",
    "class_logits",
    "settle_norms",
]


def _router_network() -> dict[str, Any]:
    return {
        "size": {"widths": [24, 48, 96, 192], "depths": [1, 1, 2, 1], "head_channels": 24},
        "head_dropout": 0.1,
    }


def _router_spec() -> dict[str, Any]:
    return ImageSpec(96, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), stride=32).to_json()


@dataclass(frozen=True)
class ClassifierRecipe:
    """What a training of a classifier consists of, apart from the data. The defaults are the modality router's.

    Args:
        network: options of `build_classifier`.
        image_spec: fields of the `ImageSpec`.
        epochs: to train.
        epoch_length: steps of each.
        batch: pictures a step (of one process).
        rate: learning rate.
        weight_decay: of AdamW.
        warmup: steps until the rate is reached.
        smoothing: share of the target that is spread over all classes.
        ema: momentum of the running average of the weights that is shipped.
        seed: of everything random.
        foreign: share of foreign pictures (router only).
        held_out: share of the training groups that calibrates and is not trained on (router only).
        warm_share: share of the steps at `warm_size` (router only).
        warm_size: side of the pictures of these [px].
        gentle_share: share of the steps, the last ones, with gentle views (router only).
        mix: share of the views that are blended with another view, and their targets likewise (router only).
        teacher: timm's name of the network that is learned from too; empty for none (router only).
        teacher_sha256: of its weights.
        teacher_views: steps whose views its head is fitted to.
        teacher_weight: share of its answers beside the labels, 0..1.
        teacher_features: weight of the distance to its features.
        init: sha256 of the weights that it went on from; empty for none.
        left_out: sources not trained on, such as `busi` or `chest_xray/lungvae` (router only).
    """

    network: dict[str, Any] = field(default_factory=_router_network)
    image_spec: dict[str, Any] = field(default_factory=_router_spec)
    epochs: int = 60
    epoch_length: int = 50
    batch: int = 32
    rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    smoothing: float = 0.05
    ema: float = 0.005
    seed: int = 0
    foreign: float = 0.25
    held_out: float = 0.1
    warm_share: float = 0.75
    warm_size: int = 64
    gentle_share: float = 0.25
    mix: float = 0.1
    teacher: str = ""
    teacher_sha256: str = ""
    teacher_views: int = 120
    teacher_weight: float = 0.5
    teacher_features: float = 1.0
    init: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """In all."""
        return self.epochs * self.epoch_length

    @property
    def spec(self) -> ImageSpec:
        """How the network wants its input."""
        return ImageSpec.from_json(self.image_spec)

    def schedule(self) -> Schedule:
        """Learning rate by step."""
        return Schedule(self.steps, min(self.warmup, self.steps // 5), self.rate, self.rate)


class ClassificationStep(nn.Module):
    """Network and cross-entropy as one module, with a teacher's terms where there is one.

    Args:
        network: to be trained.
        smoothing: share of a target class that is spread over all of them; targets that are probabilities already
            come as they are.
        guide: what is learned from a teacher too; None for labels alone.
    """

    def __init__(
        self, network: TicClassifier, smoothing: float = 0.0, guide: ClassGuide | None = None
    ) -> None:
        super().__init__()
        self.network, self.smoothing, self.guide = network, smoothing, guide

    def forward(self, batch: ClassBatch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch; `loss` is what to minimise, `accuracy` the share of right answers."""
        features = self.network.features(batch.image)
        logits = self.network.head(self.network.dropout(features))
        is_hard = batch.target.ndim == 1
        loss = F.cross_entropy(logits, batch.target, label_smoothing=self.smoothing if is_hard else 0.0)
        target = batch.target if is_hard else batch.target.argmax(1)
        terms = {"accuracy": (logits.argmax(1) == target).float().mean()}
        if self.guide is not None:
            told = self.guide(batch.image, features, logits)
            loss = (1 - self.guide.weight) * loss + self.guide.weight * told["kl"]
            loss = loss + self.guide.features * told["distance"]
            terms |= {name: value.detach() for name, value in told.items()}
        return {"loss": loss, **terms}


class Calibration(NamedTuple):
    """How logits become an answer.

    Attributes:
        temperature: that logits are divided by.
        threshold: probability of the best known class under which the answer is "unknown".
        recall: share of the known held-out pictures that it was set to keep.
        pictures: how many held-out pictures, known and foreign, it was set on.
    """

    temperature: float
    threshold: float
    recall: float
    pictures: int


def calibrate(logits: Tensor, target: Tensor, recall: float = 0.99) -> Calibration:
    """Temperature of the least cross-entropy, and the threshold that keeps a share of the known.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.

    Args:
        logits: (N, K + 1), the last class foreign.
        target: (N,), of pictures that were not trained on, in the shares that are to be expected.
        recall: share of the known pictures to keep.
    """
    steps = torch.logspace(-1, 1, 81)
    losses = torch.stack([F.cross_entropy(logits / t, target) for t in steps])
    temperature = float(steps[losses.argmin()])
    known = target < logits.shape[1] - 1
    best = (logits / temperature).softmax(1)[:, :-1].amax(1)[known]
    return Calibration(temperature, float(best.quantile(1 - recall)), recall, len(target))


@torch.no_grad()
def class_logits(
    network: TicClassifier, images: Sequence[Tensor] | Iterable[Tensor], device: torch.device | str = "cpu"
) -> Tensor:
    """Logits (N, K) of batches (B, 3, H, W); the network is put in eval mode."""
    network.eval()
    return torch.cat([network(batch.to(device)).cpu() for batch in images])


def settle_norms(
    network: nn.Module, batches: Iterable[ClassBatch], device: torch.device | str = "cpu"
) -> None:
    """Take the statistics of every batch norm anew: those of averaged weights are not those of the last weights.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, section 3.2.

    Args:
        network: whose weights were averaged; left in eval mode.
        batches: of training, a few dozen.
        device: of the network.
    """
    update_bn((batch.image for batch in batches), network, torch.device(device))
    network.eval()
