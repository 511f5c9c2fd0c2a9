# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Key tables of published checkpoints, written from their authors' layouts and not from our networks."""

from collections.abc import Callable

import pytest

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def conv_norm(name: str, outputs: int, inputs: int, side: int) -> Shapes:
    statistics = {f"{name}.bn.{k}": (outputs,) for k in ("weight", "bias", "running_mean", "running_var")}
    return {
        f"{name}.c.weight": (outputs, inputs, side, side),
        **statistics,
        f"{name}.bn.num_batches_tracked": (),
    }


def merging(name: str, inputs: int, outputs: int) -> Shapes:
    return {
        **conv_norm(f"{name}.conv1", outputs, inputs, 1),
        **conv_norm(f"{name}.conv2", outputs, 1, 3),
        **conv_norm(f"{name}.conv3", outputs, outputs, 1),
    }


def tiny_block(name: str, width: int, window: int) -> Shapes:
    return {
        **norm(f"{name}.attn.norm", width),
        **linear(f"{name}.attn.qkv", width, 3 * width),
        **linear(f"{name}.attn.proj", width, width),
        f"{name}.attn.attention_biases": (width // 32, window * window),
        **norm(f"{name}.mlp.norm", width),
        **linear(f"{name}.mlp.fc1", width, 4 * width),
        **linear(f"{name}.mlp.fc2", 4 * width, width),
        **conv_norm(f"{name}.local_conv", width, 1, 3),
    }


def tiny_vit(side: int, classifier: bool) -> Shapes:
    """TinyViT-5M; `side` is that of the stem's kernels."""
    table = {**conv_norm("patch_embed.seq.0", 32, 3, side), **conv_norm("patch_embed.seq.2", 64, 32, side)}
    for i in range(2):
        for part, outputs, inputs, kernel in (
            ("conv1", 256, 64, 1),
            ("conv2", 256, 1, 3),
            ("conv3", 64, 256, 1),
        ):
            table |= conv_norm(f"layers.0.blocks.{i}.{part}", outputs, inputs, kernel)
    for stage, width, depth, window in ((1, 128, 2, 7), (2, 160, 6, 14), (3, 320, 2, 7)):
        for i in range(depth):
            table |= tiny_block(f"layers.{stage}.blocks.{i}", width, window)
    for stage, inputs, outputs in ((0, 64, 128), (1, 128, 160), (2, 160, 320)):
        table |= merging(f"layers.{stage}.downsample", inputs, outputs)
    if classifier:
        table |= norm("norm_head", 320) | linear("head", 320, 1000)
    return table | neck(320)


def neck(width: int) -> Shapes:
    return {
        "neck.0.weight": (256, width, 1, 1),
        **norm("neck.1", 256),
        "neck.2.weight": (256, 256, 3, 3),
        **norm("neck.3", 256),
    }


def prompt_encoder() -> Shapes:
    table: Shapes = {"pe_layer.positional_encoding_gaussian_matrix": (2, 128)}
    for name in (*(f"point_embeddings.{i}" for i in range(4)), "not_a_point_embed", "no_mask_embed"):
        table[f"{name}.weight"] = (1, 256)
    for place, outputs, inputs, side in ((0, 4, 1, 2), (3, 16, 4, 2), (6, 256, 16, 1)):
        table[f"mask_downscaling.{place}.weight"] = (outputs, inputs, side, side)
        table[f"mask_downscaling.{place}.bias"] = (outputs,)
    return table | norm("mask_downscaling.1", 4) | norm("mask_downscaling.4", 16)


def attention(name: str, inner: int) -> Shapes:
    table: Shapes = {}
    for part in "qkv":
        table |= linear(f"{name}.{part}_proj", 256, inner)
    return table | linear(f"{name}.out_proj", inner, 256)


def mask_decoder() -> Shapes:
    table: Shapes = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}
    for i in range(2):
        layer = f"transformer.layers.{i}"
        table |= attention(f"{layer}.self_attn", 256)
        table |= attention(f"{layer}.cross_attn_token_to_image", 128)
        table |= attention(f"{layer}.cross_attn_image_to_token", 128)
        table |= linear(f"{layer}.mlp.lin1", 256, 2048) | linear(f"{layer}.mlp.lin2", 2048, 256)
        for n in range(1, 5):
            table |= norm(f"{layer}.norm{n}", 256)
    table |= attention("transformer.final_attn_token_to_image", 128)
    table |= norm("transformer.norm_final_attn", 256) | norm("output_upscaling.1", 64)
    for place, inputs, outputs in ((0, 256, 64), (3, 64, 32)):
        table[f"output_upscaling.{place}.weight"] = (inputs, outputs, 2, 2)
        table[f"output_upscaling.{place}.bias"] = (outputs,)
    for name, last in (
        *((f"output_hypernetworks_mlps.{i}", 32) for i in range(4)),
        ("iou_prediction_head", 4),
    ):
        for place, outputs in enumerate((256, 256, last)):
            table |= linear(f"{name}.layers.{place}", 256, outputs)
    return table


def whole(encoder: Shapes) -> Shapes:
    parts = {"image_encoder": encoder, "prompt_encoder": prompt_encoder(), "mask_decoder": mask_decoder()}
    return {f"{part}.{k}": shape for part, table in parts.items() for k, shape in table.items()}


@pytest.fixture(scope="session")
def key_table() -> Callable[[str], Shapes]:
    """A function: `mobile_sam` or `lite_medsam` -> name and shape of every entry of its checkpoint."""
    return lambda name: whole(tiny_vit(3, True) if name == "mobile_sam" else tiny_vit(1, False))
