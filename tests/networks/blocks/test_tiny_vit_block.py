# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""TinyViT's block against a slow, obvious one."""

import pytest
import torch

from monai_effsam.errors import ShapeError
from monai_effsam.networks.blocks import BiasedWindowAttention, ControllerBank, TinyVitBlock


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def attention():
    """3 heads of 4 channels, window 3, biases at random."""
    torch.manual_seed(0)
    layer = BiasedWindowAttention(12, 3, 3).double()
    torch.nn.init.normal_(layer.attention_biases)
    torch.nn.init.normal_(layer.qkv.weight)
    return layer.requires_grad_(False)


def slow_attention(layer, x, tokens=None):
    """One window (9, 12), query by query and key by key; tokens: list of (key (G, d), value (G, d), bias)."""
    q, k, v = layer.qkv(layer.norm(x)).view(9, 3, 3, 4).unbind(2)  # (9, G, d)
    rows = []
    for i in range(9):
        heads = []
        for g in range(3):
            scores = [
                q[i, g] @ k[j, g] / 2
                + layer.attention_biases[g, abs(i // 3 - j // 3) * 3 + abs(i % 3 - j % 3)]
                for j in range(9)
            ]
            values = list(v[:, g])
            for key, value, bias in tokens or ():
                scores.append(q[i, g] @ key[g] / 2 + bias)
                values.append(value[g])
            heads.append((torch.stack(scores).softmax(0)[:, None] * torch.stack(values)).sum(0))
        rows.append(torch.cat(heads))
    return layer.proj(torch.stack(rows))


def test_attention_equals_the_slow_one(attention):
    x = noise(1, 9, 12)
    torch.testing.assert_close(attention(x)[0], slow_attention(attention, x[0]))


@pytest.mark.parametrize("tie_kv", [True, False])
def test_controller_tokens_join_keys_and_values(attention, tie_kv):
    bank = ControllerBank(2, 12, 3, tokens=2, tie_kv=tie_kv).double().requires_grad_(False)
    one = bank[1]
    torch.nn.init.normal_(one.bias)
    if not tie_kv:
        torch.nn.init.normal_(one.value_token)
    value = one.key_token if tie_kv else one.value_token
    tokens = [(one.key_token[:, t], value[:, t], one.bias[t]) for t in range(2)]
    x = noise(1, 9, 12)
    torch.testing.assert_close(
        attention(x, bank.tokens_of([1], 1))[0], slow_attention(attention, x[0], tokens)
    )


def test_changed_biases_count_at_once(attention):
    x = noise(1, 9, 12)
    attention.eval()
    before = attention(x)
    attention.attention_biases.add_(torch.arange(9))
    assert not torch.allclose(attention(x), before)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 7), (1, 2), (6, 3)])
def test_windows_are_independent_and_padded_with_zeros(height, width):
    block = TinyVitBlock(8, 2, 3).double().eval().requires_grad_(False)
    x = noise(1, 8, height, width)
    whole = torch.zeros(1, 8, -(-height // 3) * 3, -(-width // 3) * 3, dtype=torch.float64)
    whole[..., :height, :width] = x
    want = torch.zeros_like(whole)
    for row in range(0, whole.shape[2], 3):
        for column in range(0, whole.shape[3], 3):
            window = whole[0, :, row : row + 3, column : column + 3]
            answer = block.attn(window.flatten(1).T[None])[0]
            want[0, :, row : row + 3, column : column + 3] = answer.T.view(8, 3, 3)
    got = block._attend(x.permute(0, 2, 3, 1), ()).permute(0, 3, 1, 2)
    torch.testing.assert_close(got, want[..., :height, :width])


def test_channels_that_heads_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match=r"channels is 10, expected a multiple of heads \(4\)"):
        BiasedWindowAttention(10, 4, 7)
