# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Deterministic weights and inputs from integer hashing: conformance to published numbers without any checkpoint."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_effsam.checkpoints.esp_release import RELEASE_MODALITIES, RELEASE_OPTIONS, from_release, to_release
from monai_effsam.networks.nets.esp_medsam import EspMedSam
from monai_effsam.targets import Target


def _hashed(key, *shape):
    """u(key): float64 in -1..1 of the given shape, from the position and the CRC of the key alone."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(2654435761) + np.uint64(
        zlib.crc32(key.encode())
    )
    mask = np.uint64(0xFFFFFFFF)
    x &= mask
    for _ in range(2):
        x ^= x >> np.uint64(16)
        x = (x * np.uint64(0x45D9F3B)) & mask
    x ^= x >> np.uint64(16)
    return torch.from_numpy(x.astype(np.float64) / 2**31 - 1).reshape(shape)


def _filled(key, like):
    """The weight of one release entry."""
    u = _hashed(key, *like.shape)
    short = key.rsplit(".", 1)[-1]
    if short == "num_batches_tracked":
        return torch.zeros_like(like)
    if short == "running_var":
        return 1 + 0.1 * u**2
    if short == "running_mean":
        return 0.05 * u
    if short == "attention_biases":
        return 0.1 * u
    if (
        short in ("deep_QKV_embeddings_med", "positional_encoding_gaussian_matrix")
        or key == "mask_query.weight"
    ):
        return u
    if like.ndim == 1:
        return 1 + 0.1 * u if short == "weight" else 0.05 * u
    return u * (3 / np.prod(like.shape[1:])) ** 0.5


@pytest.fixture(scope="session")
def hashed():
    return _hashed


@pytest.fixture(scope="session")
def golden():
    """The published table; the file says where it comes from."""
    return json.loads(Path(__file__).with_name("esp_medsam.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def release_network():
    """A function dtype -> ESP-MedSAM of the release's arithmetic with hashed weights, in eval mode."""
    targets = [Target(f"target_{m}", m, i + 1, (0, 0, 0), "", "") for i, m in enumerate(RELEASE_MODALITIES)]

    def build(dtype):
        encoder = {"name": "tiny_vit", "modalities": 1, "with_classifier": True}
        network = EspMedSam(encoder, targets, **RELEASE_OPTIONS).eval()
        state = {key: _filled(key, like) for key, like in to_release(network.state_dict(), 0).items()}
        state["patch_decoder.3.bias"] -= 0.85
        network.to(dtype).load_state_dict(from_release([state], keep_classifier=True))
        return network.requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def release(release_network):
    """The network in float64; tests must not change it."""
    return release_network(torch.float64)
