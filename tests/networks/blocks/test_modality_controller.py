# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Modality controllers: sizes, routing, start values."""

import pytest
import torch

from monai_effsam.networks.blocks import ControllerBank, ModalityController


@pytest.mark.parametrize(("channels", "heads", "tokens"), [(128, 4, 1), (160, 5, 1), (64, 2, 3)])
def test_size_follows_the_formula(channels, heads, tokens):
    controller = ModalityController(channels, heads, tokens)
    size = sum(p.numel() for p in controller.parameters())
    assert size == 8 * channels**2 + 7 * channels + channels * tokens + tokens


def test_separate_value_tokens_add_their_own_size():
    tied, separate = ModalityController(64, 2, 3), ModalityController(64, 2, 3, tie_kv=False)
    assert sum(p.numel() for p in separate.parameters()) - sum(p.numel() for p in tied.parameters()) == 3 * 64


def test_fresh_expert_is_silent_unless_started_as_in_the_release():
    x = torch.randn(2, 5, 64)
    assert not ModalityController(64, 2).expert(x).any()
    assert ModalityController(64, 2, release_init=True).expert(x).any()


def test_release_start_values():
    controller = ModalityController(128, 4, release_init=True)
    assert controller.key_token.abs().max() <= 0.0875
    assert controller.key_token.abs().max() > 0.08
    assert controller.bias.tolist() == [0]
    assert ModalityController(128, 4).bias.tolist() == [-5]


@torch.no_grad()
def test_expert_of_a_mixed_batch_is_that_of_each_image():
    bank = ControllerBank(3, 64, 2, release_init=True)
    x, modalities = torch.randn(5, 4, 4, 64), [2, 0, 2, 1, 0]
    want = torch.stack([bank[m].expert(image) for m, image in zip(modalities, x, strict=True)])
    torch.testing.assert_close(bank.expert(x, modalities), want)


def test_tokens_follow_their_images_window_by_window():
    bank = ControllerBank(3, 64, 2)
    tokens = bank.tokens_of([2, 0], windows=3)
    assert tokens.key.shape == (6, 2, 1, 32)
    assert torch.equal(tokens.key[2], bank[2].key_token)
    assert torch.equal(tokens.value[3], bank[0].key_token)


def test_one_modality_shares_its_tokens_among_all_windows():
    assert ControllerBank(3, 64, 2).tokens_of([1, 1], windows=3).key.shape == (1, 2, 1, 32)


def test_absent_modalities_get_no_gradient():
    bank = ControllerBank(3, 64, 2, release_init=True)
    tokens = bank.tokens_of([0, 2], windows=1)
    (bank.expert(torch.randn(2, 4, 64), [0, 2]).sum() + tokens.key.sum() + tokens.bias.sum()).backward()
    reached = [all(p.grad is not None for p in controller.parameters()) for controller in bank]
    assert reached == [True, False, True]
    assert all(p.grad is None for p in bank[1].parameters())
