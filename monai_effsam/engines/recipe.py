# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a training of the self-prompting model consists of, apart from the data: sizes, rates, weights to start from."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from monai_effsam.checkpoints import load_model
from monai_effsam.checkpoints.transfer import transfer_weights
from monai_effsam.errors import UsageError, WeightsError
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder, fold_batch_norm
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec, Intensity
from monai_effsam.targets import TARGETS, Target

__all__ = ["SIZES", "Recipe", "build_network", "read_recipe"]

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training gives, apart from the data; stored with the model.

    Args:
        encoder: options of `build_encoder`.
        decoder: options of `QueryDecoupledDecoder`.
        sizes: model size a modality [px].
        intensities: intensity rule of the `ImageSpec` of those modalities that have one of their own.
        mean: of the input normalisation.
        std: of the input normalisation.
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
        held_out: share of the training groups that calibrates presence.
        seed: of everything random.
    """

    encoder: dict[str, Any] = field(
        default_factory=lambda: {"name": "timm", "model": "tf_efficientnet_lite0"}
    )
    decoder: dict[str, Any] = field(default_factory=lambda: {"mlp_dim": 1024, "hyper_dim": 128})
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    intensities: dict[str, Intensity] = field(default_factory=lambda: dict(INTENSITIES))
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)
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
        return {
            m: ImageSpec(size, intensity=self.intensities.get(m, "uint8"), mean=self.mean, std=self.std)
            for m, size in self.sizes.items()
        }

    def network_options(self) -> dict[str, Any]:
        """Keyword arguments of `EspMedSam`, without the targets."""
        return {"encoder": dict(self.encoder), "decoder": dict(self.decoder)}


def read_recipe(path: Path | str, **changes: Any) -> Recipe:
    """A recipe from a JSON file with fields of `Recipe`.

    Args:
        path: of the file.
        changes: fields that differ; None for as in the file.

    Raises:
        UsageError: unreadable, or a field that no recipe has.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path}: is not a readable JSON file ({error}), expected a recipe. Restore it."
        ) from error
    content |= {name: value for name, value in changes.items() if value is not None}
    names = [f.name for f in fields(Recipe)]
    if unknown := sorted(content.keys() - set(names)):
        raise UsageError(
            f"{path}: holds the fields {unknown}, expected some of {', '.join(names)}. Remove them."
        )
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return Recipe(**plain)


def build_network(
    recipe: Recipe, targets: Sequence[Target] = TARGETS, init: Path | str | None = None
) -> EspMedSam:
    """The recipe's network.

    Args:
        recipe: what to build.
        targets: the target table.
        init: weights to start from: a model of ours (`model.pt`, run or bundle), or a timm trunk (`.safetensors`).

    Raises:
        WeightsError: `init` does not fit.
    """
    init = Path(init) if init and init != "none" else None
    if init is not None and init.suffix == ".safetensors":
        network = EspMedSam({**recipe.encoder, "fold": False}, targets, decoder=recipe.decoder)
        _load_trunk(network, init)
        return network
    network = EspMedSam(**recipe.network_options(), targets=targets)
    if init is not None:
        source = load_model(init)
        if source.promptable:
            raise WeightsError(
                f"{source.path}: is a promptable model, expected a self-prompting one to start from. Name another."
            )
        state, missed = transfer_weights(
            network.state_dict(), network.targets, source.network.state_dict(), source.targets
        )
        network.load_state_dict(state)
        log.info("%s: all but %d of %d tensors taken", init, len(missed), len(state))
    return network


def _load_trunk(network: EspMedSam, file: Path) -> None:
    from safetensors.torch import load_file

    encoder = network.encoder
    if not isinstance(encoder, TimmEncoder):
        raise WeightsError(f"{file}: a timm trunk does not fit the encoder {type(encoder).__name__}.")
    result = encoder.trunk.load_state_dict(load_file(file), strict=False)
    lacking = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    if lacking:
        raise WeightsError(f"{file}: lacks {len(lacking)} tensors of the trunk, such as {lacking[:3]}.")
    fold_batch_norm(encoder.trunk)
