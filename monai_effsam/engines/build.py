# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The network of a recipe, with the weights that its training starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from monai_effsam.checkpoints import LoadedCheckpoint, load_checkpoint
from monai_effsam.checkpoints.transfer import promptable_weights, self_prompting_weights, transfer_weights
from monai_effsam.engines.recipe import PromptableRecipe, Recipe
from monai_effsam.errors import WeightsError
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder, fold_batch_norm
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.targets import TARGETS, Target

__all__ = ["adopt_checkpoint", "build_network", "build_promptable", "load_trunk"]

TUNING_RATE = 1e-4

log = logging.getLogger(__name__)


def build_network(
    recipe: Recipe, targets: Sequence[Target] = TARGETS, init: Path | str | None = None
) -> EspMedSam:
    """The recipe's self-prompting network.

    Args:
        recipe: what to build.
        targets: the target table.
        init: weights to start from: a model of ours (`model.pt`, run or bundle), a timm trunk (`.safetensors`), or a
            promptable network, such as a SAM checkpoint, of which the encoder must fit and the rest is taken as far
            as it does.

    Raises:
        WeightsError: `init` does not fit.
    """
    init = Path(init) if init and init != "none" else None
    if init is not None and init.suffix == ".safetensors":
        network = EspMedSam({**recipe.encoder, "fold": False}, targets, decoder=recipe.decoder)
        load_trunk(network.encoder, init)
        return network
    network = EspMedSam(**recipe.network_options(), targets=targets)
    if init is not None:
        own, source = network.state_dict(), load_checkpoint(init)
        if isinstance(source.network, EspMedSam):
            state, missed = transfer_weights(
                own, network.targets, source.network.state_dict(), source.network.targets
            )
        else:
            state = {**own, **_of_promptable(own, source.network, init)}
            missed = [name for name in own if state[name] is own[name]]
        network.load_state_dict(state)
        log.info("%s: all but %d of %d tensors taken", init, len(missed), len(state))
    return network


def adopt_checkpoint(recipe: PromptableRecipe, checkpoint: LoadedCheckpoint) -> PromptableRecipe:
    """A recipe that fine-tunes the very network of a checkpoint, with the input that its weights want.

    Args:
        recipe: whatever else it says stays, but for rates (those of a training from the beginning are too high: MedSAM
            tunes SAM with 1e-4) and the share of steps at another size, which a ViT with positions cannot take.
        checkpoint: of a promptable network.
    """
    options, spec = dict(checkpoint.options), checkpoint.spec
    others = {m: s.intensity for m, s in checkpoint.specs.items() if s.intensity != spec.intensity}
    return replace(
        recipe,
        encoder=dict(options["image_encoder"]),
        mlp_dim=options.get("mlp_dim", PromptableSam.MLP_DIM),
        decoder_depth=options.get("decoder_depth", PromptableSam.DECODER_DEPTH),
        drawn=options.get("drawn", False),
        image_spec=spec.to_json(),
        intensities=others,
        rate=min(recipe.rate, TUNING_RATE),
        trunk_rate=min(recipe.trunk_rate, TUNING_RATE),
        warm_share=0.0,
    )


def _of_promptable(own: Mapping[str, Tensor], source: PromptableSam, init: Path) -> dict[str, Tensor]:
    """Tensors for a self-prompting network from a promptable one, of whose encoder none may be left over."""
    taken = self_prompting_weights(own, source.state_dict())
    wanted = {f"encoder.{name}" for name in source.image_encoder.state_dict()}
    if lacking := sorted(wanted - taken.keys()):
        raise WeightsError(
            f"{init}: {len(lacking)} of {len(wanted)} tensors of its encoder do not fit the recipe's, such as "
            f"{lacking[:3]}. Choose a recipe with that encoder, or 'none'."
        )
    return taken


def build_promptable(recipe: PromptableRecipe, init: Path | str | None = None) -> PromptableSam:
    """The recipe's promptable network.

    Args:
        recipe: what to build.
        init: weights to start from: a model of ours of either kind, or a SAM-like file, of which is taken what fits, or
            a timm trunk (`.safetensors`).

    Raises:
        WeightsError: `init` does not fit.
    """
    init = Path(init) if init and init != "none" else None
    options = recipe.network_options()
    if init is not None and init.suffix == ".safetensors":
        network = PromptableSam(**{**options, "image_encoder": {**options["image_encoder"], "fold": False}})
        load_trunk(network.image_encoder, init)
        return network
    network = PromptableSam(**options)
    if init is not None:
        own = network.state_dict()
        taken = promptable_weights(own, load_checkpoint(init).network.state_dict())
        if not any(name.startswith("image_encoder.") for name in taken):
            raise WeightsError(
                f"{init}: no tensor fits the recipe's encoder, expected a model with the like. Choose one, or 'none'."
            )
        network.load_state_dict({**own, **taken})
        log.info("%s: %d of %d tensors taken", init, len(taken), len(own))
    return network


def load_trunk(encoder: nn.Module, file: Path) -> None:
    """Weights of a timm trunk into an encoder; one that was built with `fold=False` is folded afterwards.

    Args:
        encoder: with a trunk of timm's.
        file: safetensors with timm's names; those that `features_only` gives its layers are tried too.

    Raises:
        WeightsError: unreadable, another encoder, or tensors that are missing or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    trunk = getattr(encoder, "trunk", None)
    if not isinstance(trunk, nn.Module):
        raise WeightsError(f"{file}: a timm trunk does not fit the encoder {type(encoder).__name__}.")
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file}: is no readable safetensors file ({error}), expected weights of a timm trunk. Restore it."
        ) from error
    own = trunk.state_dict()
    for child, _ in trunk.named_children():  # features_only makes `stages.0` a child `stages_0`
        plain = child.replace("_", ".") + "."
        state |= {f"{child}.{k.removeprefix(plain)}": v for k, v in state.items() if k.startswith(plain)}
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k not in fits and not k.endswith("num_batches_tracked")]
    if lacking:
        raise WeightsError(f"{file}: lacks {len(lacking)} tensors of the trunk, such as {lacking[:3]}.")
    trunk.load_state_dict(fits, strict=False)
    if isinstance(encoder, TimmEncoder):
        fold_batch_norm(trunk)
