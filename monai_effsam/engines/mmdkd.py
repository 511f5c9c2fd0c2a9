# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""ESP-MedSAM's multi-modal decoupled knowledge distillation (MMDKD): what both of its stages are made of.

"ESP-MedSAM", Xu et al., arXiv 2407.14153. First the shared part of the student's encoder learns the embeddings of a
general teacher, then the controllers of each modality those of a medical one, while all else stands still.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import ignite.distributed as idist
from torch import Tensor, nn

from monai_effsam.checkpoints.transfer import transfer_weights
from monai_effsam.data.balanced_views import BalancedViews
from monai_effsam.data.distilling import ViewBatch
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.build import build_network
from monai_effsam.engines.recipe import Recipe, read_recipe
from monai_effsam.engines.teacher import Teacher
from monai_effsam.errors import SpecError, UnknownNameError, UsageError, WeightsError
from monai_effsam.losses import EmbeddingMseLoss
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.targets import TARGETS, Target

__all__ = [
    "MmdkdRecipe",
    "MmdkdStep",
    "Part",
    "adopt_decoder",
    "build_mmdkd_student",
    "build_view_loader",
    "read_mmdkd_recipe",
    "train_only",
]

log = logging.getLogger(__name__)

Part = Literal["shared", "controllers"]
"""What a stage trains: all of the encoder that no modality owns, or all that some modality does."""


@dataclass(frozen=True)
class MmdkdRecipe(Recipe):
    """A recipe of the student, trained on embeddings instead of labels.

    Args:
        part: of the encoder that is trained.
        teacher: sha256 of its weights.
        views: number of views of each picture.
    """

    part: Part = "shared"
    teacher: str = ""
    views: int = 4


def read_mmdkd_recipe(
    path: Path | str, part: Part, teacher: Teacher, *, views: int = 4, **changes: Any
) -> MmdkdRecipe:
    """One stage, by the file that also tells how to train the same network on labels.

    Args:
        path: see `read_recipe`.
        part: of the encoder that is trained.
        teacher: its weights are part of the recipe, so that no run continues with another.
        views: number of views of each picture.
        changes: fields that differ; None for as in the file.

    Raises:
        UsageError: as of `read_recipe`, or a recipe of a promptable model.
        UnknownNameError: no such part.
    """
    recipe = read_recipe(path, **changes)
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"{path}: is a recipe of a promptable model, expected a self-prompting one. Use effsam distill."
        )
    if part not in get_args(Part):
        raise UnknownNameError("part", part, get_args(Part))
    plain = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return MmdkdRecipe(**plain, part=part, teacher=teacher.sha256, views=views)


def build_mmdkd_student(
    recipe: Recipe,
    teacher: Teacher,
    targets: Sequence[Target] = TARGETS,
    init: Path | str | None = None,
    *,
    decoder: bool = False,
) -> EspMedSam:
    """The recipe's network, to learn from a teacher.

    Args:
        recipe: what to build.
        teacher: to learn from.
        targets: the target table.
        init: see `build_network`; the model of the first stage in the second.
        decoder: take the teacher's self-prompter and decoder, if it is a self-prompting network.

    Raises:
        WeightsError: `init` does not fit, or embeddings of another width than the teacher's.
    """
    network = build_network(recipe, targets, init)
    ours, theirs = network.encoder.embed_channels, teacher.encoder.embed_channels
    if ours != theirs:
        raise WeightsError(
            f"teacher: its embedding has {theirs} channels, expected the student's {ours}. Set embed_channels in the "
            "recipe's encoder."
        )
    if decoder and isinstance(teacher.network, EspMedSam):
        lacking = adopt_decoder(network, teacher.network)
        if lacking:
            log.warning(
                "%d tensors of the student's decoder have no like in the teacher's, such as %s: tune it on labels",
                len(lacking),
                lacking[:3],
            )
    return network


def adopt_decoder(network: EspMedSam, source: EspMedSam) -> list[str]:
    """Take the self-prompter, prompt encoder and decoder of another network, as far as they fit.

    What reads the embedding alone fits if the embeddings have one width. What reads the encoder's skips fits if they
    have the same channels, but means little: the skips of another trunk are other features.

    Args:
        network: changed in place.
        source: trained.

    Returns:
        Names of the tensors that could not be taken.
    """
    own = network.state_dict()
    state, missed = transfer_weights(own, network.targets, source.state_dict(), source.targets)
    network.load_state_dict({k: own[k] if k.startswith("encoder.") else v for k, v in state.items()})
    return [name for name in missed if not name.startswith("encoder.")]


def build_view_loader(
    recipe: MmdkdRecipe, slices: Sequence[LabelledSlice], modalities: Sequence[str], teacher: Teacher
) -> BalancedViews:
    """The batches that a stage draws from some slices, in this process.

    Args:
        recipe: its weights count only if they name at least one of the sets at hand.
        slices: to draw from; their labels only decide how often.
        modalities: of the student.
        teacher: with a cache or without.
    """
    at_hand = {name for s in slices for name in (s.stratum, s.stratum.split("/")[0])}
    return BalancedViews(
        slices,
        recipe.specs(),
        teacher,
        modalities=modalities,
        weights={name: share for name, share in recipe.weights.items() if name in at_hand},
        views=recipe.views,
        batch_area=recipe.batch_area,
        epoch_length=recipe.epoch_length,
        seed=recipe.seed,
        rank=idist.get_rank(),
    )


class MmdkdStep(nn.Module):
    """Network and loss as one module: a part of its encoder learns the embeddings of a teacher.

    The shared part learns without the controllers, so that what they hold cannot leak into it. While the controllers
    learn, everything else is frozen and BatchNorm keeps its statistics.

    Args:
        network: its parameters outside the part are frozen.
        part: see `Part`.
        loss: (ours, theirs, valid) -> scalar; mean squared error by default, as in the release.

    Raises:
        SpecError: the encoder has no controllers to train.
    """

    def __init__(self, network: EspMedSam, part: Part, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.part = network, part
        self.loss = loss or EmbeddingMseLoss()
        controllers = list(network.encoder.controller_parameters())
        if part == "controllers":
            if not controllers:
                raise SpecError(
                    f"MmdkdStep: {type(network.encoder).__name__} has no modality controllers, expected some to train. "
                    "Choose tiny_vit or timm."
                )
            train_only(network, controllers)
        else:
            owned = {id(p) for p in controllers}
            train_only(network, [p for p in network.encoder.parameters() if id(p) not in owned])

    def train(self, mode: bool = True) -> MmdkdStep:
        """As of any module, but what does not train stays in eval mode."""
        super().train(mode)
        self.network.eval()
        if self.part == "shared":
            self.network.encoder.train(mode)
        return self

    def forward(self, batch: ViewBatch, step: int) -> dict[str, Tensor]:
        """Loss of a batch."""
        modality = batch.modality if self.part == "controllers" else None
        ours = self.network.encoder(batch.image, modality).embedding
        return {"loss": self.loss(ours, batch.target, batch.valid)}


def train_only(network: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Freeze a network but for some of its parameters."""
    network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
