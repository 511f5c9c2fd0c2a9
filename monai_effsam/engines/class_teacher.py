# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A classifier's teacher: a frozen network that has seen many photographs, with a linear head fitted to the task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.checkpoints.trunk import load_timm_trunk
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.losses import ClassKlLoss
from monai_effsam.networks.nets.tic import TicClassifier
from monai_effsam.specs import ImageSpec

__all__ = ["ClassGuide", "ClassTeacher", "TeacherAnswer"]

RIDGE = 1e-3
"""Weight of the head's squared norm beside the mean cross-entropy: there are few pictures for so many features."""


class TeacherAnswer(NamedTuple):
    """What a teacher makes of B pictures.

    Attributes:
        features: (B, C), each of mean 0 and variance 1 over the views that the head was fitted to.
        logits: (B, K).
    """

    features: Tensor
    logits: Tensor


class ClassTeacher(nn.Module):
    """A timm network's pooled features and a linear head. Frozen, always in eval mode.

    Args:
        network: timm's name of it.
        file: its weights, safetensors.
        spec: how the student wants its pictures; the teacher is shown the same ones.
        classes: length of the answer.

    Raises:
        WeightsError: the weights do not fit.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, network: str, file: Path, spec: ImageSpec, classes: int) -> None:
        super().__init__()
        trunk = load_timm_trunk(network, file)
        self.trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width, self.size = int(cast(int, trunk.num_features)), spec.size
        self.head = nn.Linear(self.width, classes)
        wanted = {key: torch.tensor(trunk.pretrained_cfg[key]) for key in ("mean", "std")}  # type: ignore[index]
        own = {"mean": torch.tensor(spec.mean), "std": torch.tensor(spec.std)}
        self.register_buffer("scale", (own["std"] / wanted["std"]).view(1, 3, 1, 1))
        self.register_buffer("shift", ((own["mean"] - wanted["mean"]) / wanted["std"]).view(1, 3, 1, 1))
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("spread", torch.ones(self.width))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> ClassTeacher:
        """Stays in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> TeacherAnswer:
        """Pictures (B, 3, H, W) as the student is given them; smaller ones than it was fitted to are enlarged."""
        if image.shape[-1] < self.size:
            image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", align_corners=False)
        shown = (image * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        features = (self.trunk(shown) - self.mean) / self.spread
        return TeacherAnswer(features, self.head(features))

    def fit(self, batches: Iterable[ClassBatch], steps: int = 60) -> float:
        """Fit the head to views by multinomial logistic regression, with L-BFGS.

        Args:
            batches: of training, a few thousand views; features of all of them are held in memory.
            steps: of L-BFGS.

        Returns:
            Share of these views that it then names right.
        """
        device = self.mean.device
        raw, targets = [], []
        for item in batches:
            batch = item.to(device)
            raw.append(self(batch.image).features * self.spread + self.mean)
            targets.append(batch.target)
        x, target = torch.cat(raw), torch.cat(targets)
        self.mean.copy_(x.mean(0))
        self.spread.copy_(x.std(0).clamp(min=1e-3))
        x = (x - self.mean) / self.spread
        weight, bias = (torch.zeros_like(p, requires_grad=True) for p in self.head.parameters())
        solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), target) + RIDGE * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            solver.step(loss)  # type: ignore[no-untyped-call]
        self.head.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        hard = target if target.ndim == 1 else target.argmax(1)
        return float((self.head(x).argmax(1) == hard).float().mean())


class ClassGuide(nn.Module):
    """What a student should take from its teacher: soft answers, and features behind a linear map.

    Args:
        teacher: fitted.
        student: to be trained.
        weight: share of the teacher's answers beside the labels, 0..1.
        features: weight of 1 - cosine between mapped features and the teacher's.
        temperature: of the answers.
    """

    def __init__(
        self,
        teacher: ClassTeacher,
        student: TicClassifier,
        weight: float = 0.5,
        features: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.teacher, self.weight, self.features = teacher, weight, features
        self.map = nn.Linear(student.head.in_features, teacher.width)
        self.kl = ClassKlLoss(temperature)

    def forward(self, image: Tensor, features: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Terms of pictures and what the student made of them: `kl` and `distance`, a mean each."""
        told = self.teacher(image)
        alike = torch.cosine_similarity(self.map(features), told.features)
        return {"kl": self.kl(logits, told.logits), "distance": 1 - alike.mean()}
