# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Weights of a pretrained timm trunk of inverted residuals, as the stages that a searched encoder inherits from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.networks.foreign import import_timm

__all__ = ["INHERITED_TRUNK", "LayerWeights", "MobileTrunk", "TrunkBlock", "TrunkStage", "read_trunk"]

INHERITED_TRUNK = "tf_efficientnet_lite0"
"""Network of timm that is inherited from, if none is named."""


class LayerWeights(NamedTuple):
    """A convolution and the batch norm after it.

    Attributes:
        weight: (C', C / groups, k, k).
        scale: gamma of the norm, (C').
        shift: its beta, (C').
        mean: that it subtracts, (C').
        variance: whose root it divides by, its epsilon included, (C').
    """

    weight: Tensor
    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def gain(self) -> Tensor:
        """What the norm multiplies with, (C')."""
        return self.scale * self.variance.rsqrt()

    @property
    def offset(self) -> Tensor:
        """What it then adds, (C')."""
        return self.shift - self.mean * self.gain


class TrunkBlock(NamedTuple):
    """An inverted residual.

    Attributes:
        expand: 1x1, to the hidden channels.
        depthwise: k x k.
        project: 1x1, from the hidden channels.
    """

    expand: LayerWeights
    depthwise: LayerWeights
    project: LayerWeights


class TrunkStage(NamedTuple):
    """Blocks of one width.

    Attributes:
        stride: image pixels a step of its map.
        entry: the first, without a way around.
        blocks: the others, with one.
    """

    stride: int
    entry: TrunkBlock
    blocks: tuple[TrunkBlock, ...]

    @property
    def width(self) -> int:
        """C of its map."""
        return len(self.entry.project.weight)


@dataclass(frozen=True)
class MobileTrunk:
    """A pretrained trunk.

    Args:
        name: timm's.
        sha256: of the file.
        same: whether it pads as TensorFlow does.
        mean: of the input that it wants, RGB.
        std: likewise.
        stem: the first convolution, and the depthwise-separable block after it (depthwise, pointwise).
        stages: fine to coarse, from stride 4 on.
    """

    name: str
    sha256: str
    same: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stem: tuple[LayerWeights, LayerWeights, LayerWeights]
    stages: tuple[TrunkStage, ...]

    @property
    def kind(self) -> str:
        """Which of `TRUNK_KINDS` computes as it does."""
        return "inverted_same" if self.same else "inverted"


def read_trunk(file: Path, network: str = INHERITED_TRUNK) -> MobileTrunk:
    """Weights of a network of timm's that consists of inverted residuals with ReLU6, such as MobileNetV2.

    Args:
        file: `.safetensors` with timm's names; what follows the blocks may lack.
        network: timm's name of it.

    Raises:
        UnknownNameError: timm has no such network.
        UsageError: a network of another family, with squeeze-excitation or with another activation.
        WeightsError: a file that cannot be read or does not fit the network.
        MissingExtraError: timm is not installed.
    """
    timm = import_timm()
    if not timm.is_model(network):
        raise UnknownNameError("network to inherit from", network, timm.list_models(f"*{network[:6]}*"))
    model = timm.create_model(network, pretrained=False, num_classes=0).eval()
    _check_family(model, network)
    digest = _load(model, file, network)
    config = model.pretrained_cfg
    stem = (
        _layer(model.conv_stem, model.bn1),
        _layer(model.blocks[0][0].conv_dw, model.blocks[0][0].bn1),
        _layer(model.blocks[0][0].conv_pw, model.blocks[0][0].bn2),
    )
    stages, stride = [], 2
    for blocks in model.blocks[1:]:
        stride *= blocks[0].conv_dw.stride[0]
        entry, *others = (_block(block) for block in blocks)
        stages.append(TrunkStage(stride, entry, tuple(others)))
    same = type(model.conv_stem).__name__ == "Conv2dSame"
    return MobileTrunk(
        network, digest, same, tuple(config["mean"]), tuple(config["std"]), stem, tuple(stages)
    )


def _check_family(model: nn.Module, network: str) -> None:
    """Refuse a network whose blocks are no plain inverted residuals."""
    if found := _strange(model):
        raise UsageError(
            f"network to inherit from: {network} has {found}, expected plain inverted residuals with ReLU6. Take "
            f"{INHERITED_TRUNK} or mobilenetv2_100."
        )


def _strange(model: Any) -> str:
    """What a network has that cannot be inherited; empty for nothing."""
    if type(model).__name__ not in ("EfficientNet", "MobileNetV3"):
        return "blocks of another family"
    stages = [list(stage) for stage in model.blocks]
    every = [block for stage in stages for block in stage]
    if any(not isinstance(getattr(block, "se", None), nn.Identity | None) for block in every):
        return "squeeze-excitation"
    kinds = [type(block).__name__ for block in every]
    if len(stages[0]) > 1 or kinds[0] != "DepthwiseSeparableConv" or {*kinds[1:]} != {"InvertedResidual"}:
        return "blocks of another family"
    acts = {type(norm.act) for norm in (model.bn1, *(block.bn1 for block in every))}
    if acts != {nn.ReLU6}:
        return f"the activation {', '.join(sorted(act.__name__ for act in acts))}"
    convolutions = [module for module in model.blocks.modules() if isinstance(module, nn.Conv2d)]
    strides = [stage[0].conv_dw.stride[0] for stage in stages]
    if strides[:2] != [1, 2] or any(conv.dilation != (1, 1) for conv in convolutions):
        return "other strides"
    return ""


def _load(model: nn.Module, file: Path, network: str) -> str:
    """Fill a network from a file; gives the file's sha256."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = file.read_bytes()
        state = load(content)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file}: is no readable safetensors file ({error}), expected weights of {network}. Restore it."
        ) from error
    own = model.state_dict()
    needed = [k for k in own if k.startswith(("conv_stem.", "bn1.", "blocks.")) and "num_batches" not in k]
    lacking = [k for k in needed if k not in state or state[k].shape != own[k].shape]
    if lacking:
        raise WeightsError(
            f"{file}: lacks {len(lacking)} of {len(needed)} tensors of {network}, such as {lacking[0]}. Name the "
            "network that the weights are of."
        )
    model.load_state_dict({k: state[k] for k in needed}, strict=False)
    return hashlib.sha256(content).hexdigest()


def _layer(conv: Any, norm: Any) -> LayerWeights:
    parts = (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var + norm.eps)
    return LayerWeights(*(cast(Tensor, part).detach().to(torch.float32).clone() for part in parts))


def _block(block: Any) -> TrunkBlock:
    return TrunkBlock(
        _layer(block.conv_pw, block.bn1), _layer(block.conv_dw, block.bn2), _layer(block.conv_pwl, block.bn3)
    )
