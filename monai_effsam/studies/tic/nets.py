# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The networks that are compared: of equal parameters, each for images of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from monai_effsam.networks.blocks.tic_block import TicBlock, TicMerging
from monai_effsam.networks.encoders.tic_trunk import TicSize
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.nets.tic import TicClassifier

__all__ = [
    "ABLATION",
    "CONVOLUTION",
    "EXTRA_NETS",
    "FINE_TIC",
    "PATCH",
    "STUDY_NETS",
    "TASK_NETS",
    "TIC",
    "VIT",
    "plain_attention",
    "study_net",
]

TIC, CONVOLUTION, VIT, FINE_TIC = "TiC", "convolution", "ViT", "TiC, last map 1/16"
ABLATION = ("MSA-Conv", "MSA-Conv + shift", TIC)
"""The ablation: the operator alone, with the cyclic shift, and with inter-pooling besides, which is the whole."""

PATCH = 16
"""Pixels a side of the ViT's patches: its grid is the map of TiC's third stage."""

_TIC_SIZE = TicSize((16, 32, 64, 128), (1, 2, 2, 1), 16)
_CONVOLUTION_SIZE = TicSize((14, 30, 58, 112), (1, 2, 2, 1), 2)
_VIT_WIDTH, _VIT_DEPTH, _VIT_HEADS = 88, 4, 4


def study_net(name: str, classes: int, side: int, seed: int = 0) -> nn.Module:
    """A network of `STUDY_NETS` with fresh weights, an image (B, 3, H, W) to logits (B, classes).

    Args:
        name: of the network.
        classes: of the task.
        side: of the images that it will be trained on [px]; the ViT's table of positions is made for it.
        seed: of the weights; torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return STUDY_NETS[name](classes, side)


def _tic(*, shift: bool, inter_pooling: bool, last_stride: int = 2) -> Callable[[int, int], nn.Module]:
    return lambda classes, side: TicClassifier(
        classes, _TIC_SIZE, shift=shift, inter_pooling=inter_pooling, last_stride=last_stride
    )


def _convolution(classes: int, side: int) -> nn.Module:
    """TiC's trunk, each MSA-Conv a 3 x 3 convolution of the same dilation and stride, the widths matched."""
    net = TicClassifier(classes, _CONVOLUTION_SIZE, shift=False, inter_pooling=False)
    for module in list(net.modules()):
        if isinstance(module, TicBlock):
            width, dilation = module.norm1.num_features, module.attention.window.dilation
            plain = nn.Conv2d(cast(int, width), cast(int, width), 3, padding=dilation, dilation=dilation)
            module.attention = cast(TicMerging, plain)
    for number, merging in enumerate(net.trunk.mergings):
        old = cast(nn.Conv2d, cast(TicMerging, merging).projection)
        new = nn.Conv2d(old.in_channels, old.out_channels, 3, 2, 1, bias=False)
        net.trunk.mergings[number] = nn.Sequential(new, nn.ReLU())
    return net


def _vit(classes: int, side: int) -> nn.Module:
    """timm's ViT, the mean of its tokens to the classes, as in TiC; other sizes get bicubic positions."""
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    return cast(
        nn.Module,
        VisionTransformer(
            img_size=side,
            patch_size=PATCH,
            embed_dim=_VIT_WIDTH,
            depth=_VIT_DEPTH,
            num_heads=_VIT_HEADS,
            num_classes=classes,
            class_token=False,
            global_pool="avg",
            dynamic_img_size=True,
        ),
    )


STUDY_NETS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "MSA-Conv": _tic(shift=False, inter_pooling=False),
    "MSA-Conv + shift": _tic(shift=True, inter_pooling=False),
    TIC: _tic(shift=True, inter_pooling=True),
    CONVOLUTION: _convolution,
    VIT: _vit,
    FINE_TIC: _tic(shift=True, inter_pooling=True, last_stride=1),
}
"""Name -> (classes, side of the training images) -> network with random weights."""


TASK_NETS: Mapping[str, tuple[str, ...]] = {
    "breast": (*ABLATION, CONVOLUTION, VIT),
    "modality": (*ABLATION, CONVOLUTION, VIT),
    "modality-zoom": (TIC, CONVOLUTION, VIT),
}
"""The networks that every seed of a task needs."""

EXTRA_NETS: Mapping[str, tuple[str, ...]] = {"modality": (FINE_TIC,)}
"""Networks that learn a task besides, after the others; told apart, with the seeds that have them."""


def plain_attention(vit: nn.Module) -> nn.Module:
    """The ViT itself, its attention changed to one that keeps the whole matrix of weights."""
    for module in vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = cast(Tensor, False)
    return vit
