# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a training consists of, apart from the data: network, sizes, rates."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from monai_effsam.errors import UsageError
from monai_effsam.specs import ANY_MODALITY, PROMPTABLE, SELF_PROMPTING, ImageSpec, Intensity
from monai_effsam.targets import MODALITIES

__all__ = ["RECIPES", "SIZES", "PromptableRecipe", "Recipe", "TrainingRecipe", "read_recipe"]

SIZES = {
    "endoscopy": 320,
    "ultrasound": 256,
    "dermoscopy": 256,
    "xray": 256,
    "fundus": 576,
    "ct": 288,
    "mr": 224,
}

INTENSITIES: dict[str, Intensity] = {"ct": "tissue"}

MEAN, STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)

ENCODER = {"name": "timm", "model": "tf_efficientnet_lite0"}


@dataclass(frozen=True)
class TrainingRecipe:
    """What the recipes of all models share.

    Args:
        intensities: intensity rule of the `ImageSpec` of those modalities that have one of their own.
        weights: share of each set or stratum in the batches; empty for square roots of their sizes.
        epochs: to train.
        epoch_length: steps of each.
        batch_area: pixels a batch (of one process).
        rate: learning rate of new layers.
        trunk_rate: of the pretrained trunk.
        weight_decay: of AdamW.
        warm_share: share of the steps at `warm_scale` of the model size.
        warm_scale: that scale.
        ema: momentum of the running average of the weights that is shipped.
        held_out: share of the training groups that is not trained on (it calibrates presence).
        seed: of everything random.
    """

    intensities: dict[str, Intensity] = field(default_factory=lambda: dict(INTENSITIES))
    weights: dict[str, float] = field(default_factory=dict)
    epochs: int = 35
    epoch_length: int = 100
    batch_area: int = 8 * 320 * 320
    rate: float = 1e-3
    trunk_rate: float = 3e-4
    weight_decay: float = 0.01
    warm_share: float = 0.35
    warm_scale: float = 0.75
    ema: float = 0.003
    held_out: float = 0.05
    seed: int = 0

    def specs(self) -> dict[str, ImageSpec]:
        """An `ImageSpec` for each modality."""
        raise NotImplementedError


@dataclass(frozen=True)
class Recipe(TrainingRecipe):
    """Everything that decides what a training of the self-prompting model gives, apart from the data.

    Args:
        encoder: options of `build_encoder`.
        decoder: options of `QueryDecoupledDecoder`.
        sizes: model size a modality [px].
        mean: of the input normalisation.
        std: of the input normalisation.
    """

    encoder: dict[str, Any] = field(default_factory=lambda: dict(ENCODER))
    decoder: dict[str, Any] = field(default_factory=lambda: {"mlp_dim": 1024, "hyper_dim": 128})
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def specs(self) -> dict[str, ImageSpec]:
        """An `ImageSpec` for each modality."""
        return {
            m: ImageSpec(size, intensity=self.intensities.get(m, "uint8"), mean=self.mean, std=self.std)
            for m, size in self.sizes.items()
        }

    def network_options(self) -> dict[str, Any]:
        """Keyword arguments of `EspMedSam`, without the targets."""
        return {"encoder": dict(self.encoder), "decoder": dict(self.decoder)}


@dataclass(frozen=True)
class PromptableRecipe(TrainingRecipe):
    """Everything that decides what a training of a promptable model gives, apart from the data.

    Args:
        encoder: options of `build_encoder`.
        mlp_dim: hidden width of the decoder's transformer.
        decoder_depth: its blocks.
        drawn: prompts are also drawn as a mask, see `PromptableSam`.
        image_spec: fields of the `ImageSpec` of every modality, apart from `intensities`.
        objects: drawn from each picture of a batch.
        jitter: standard deviation of box sides, as a fraction of the frame.
        rounds: share of the steps that go on to each further round of clicks.
    """

    encoder: dict[str, Any] = field(default_factory=lambda: dict(ENCODER))
    mlp_dim: int = 1024
    decoder_depth: int = 2
    drawn: bool = True
    image_spec: dict[str, Any] = field(default_factory=lambda: {"size": 384, "mean": MEAN, "std": STD})
    objects: int = 2
    jitter: float = 0.015
    rounds: tuple[float, ...] = (0.5, 0.2)
    held_out: float = 0.0

    def specs(self) -> dict[str, ImageSpec]:
        """An `ImageSpec` for each modality."""
        stored = self.stored_specs()
        return {m: stored.get(m, stored[ANY_MODALITY]) for m in MODALITIES}

    def stored_specs(self) -> dict[str, ImageSpec]:
        """The spec of every modality, under `ANY_MODALITY`, and of those that want other intensities."""
        spec = ImageSpec.from_json(self.image_spec)
        return {ANY_MODALITY: spec, **{m: replace(spec, intensity=r) for m, r in self.intensities.items()}}

    def network_options(self) -> dict[str, Any]:
        """Keyword arguments of `PromptableSam`."""
        return {
            "image_encoder": {"modalities": 0, **self.encoder},
            "prompt_size": self.image_spec.get("prompt_size"),
            "mlp_dim": self.mlp_dim,
            "decoder_depth": self.decoder_depth,
            "drawn": self.drawn,
        }


RECIPES: dict[str, type[Recipe | PromptableRecipe]] = {
    SELF_PROMPTING: Recipe,
    PROMPTABLE: PromptableRecipe,
}
"""Kind of model -> class of its recipes."""


def read_recipe(path: Path | str, **changes: Any) -> Recipe | PromptableRecipe:
    """A recipe from a JSON file with its fields and, unless it is `self_prompting`, its `kind`.

    Args:
        path: of the file, or a kind alone, for its defaults.
        changes: fields that differ; None for as in the file.

    Raises:
        UsageError: unreadable, a kind that does not exist, or a field that no such recipe has.
    """
    content: dict[str, Any] = {"kind": str(path)} if str(path) in RECIPES else _read_json(Path(path))
    kind = content.pop("kind", SELF_PROMPTING)
    if kind not in RECIPES:
        raise UsageError(f"{path}: kind is '{kind}', expected one of {', '.join(RECIPES)}. Mend it.")
    content |= {name: value for name, value in changes.items() if value is not None}
    names = [f.name for f in fields(RECIPES[kind])]
    if unknown := sorted(content.keys() - set(names)):
        raise UsageError(
            f"{path}: holds the fields {unknown}, expected some of {', '.join(names)}. Remove them."
        )
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return RECIPES[kind](**plain)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path}: is not a readable JSON file ({error}), expected a recipe or one of {', '.join(RECIPES)}. Mend it."
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds no JSON object, expected the fields of a recipe. Mend it.")
    return content
