# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The mask loss: maps apart and together, odd input, refusals. Its published value is in tests/golden."""

import pytest
import torch

from monai_effsam.errors import ShapeError
from monai_effsam.losses import SelfPromptMaskLoss


def pair(*shape):
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(*shape, generator=generator).double(), torch.rand(
        *shape, generator=generator
    ) > 0.6


def test_maps_apart_have_the_value_of_each_alone():
    logits, mask = pair(2, 3, 8, 8)
    apart = SelfPromptMaskLoss(batch=False, reduction="none")(logits, mask)
    alone = [
        [SelfPromptMaskLoss()(logits[b : b + 1, t : t + 1], mask[b : b + 1, t : t + 1]) for t in range(3)]
        for b in range(2)
    ]
    torch.testing.assert_close(apart, torch.tensor(alone).double())


def test_sum_is_count_times_mean():
    logits, mask = pair(2, 3, 8, 8)
    total = SelfPromptMaskLoss(batch=False, reduction="sum")(logits, mask)
    torch.testing.assert_close(total, 6 * SelfPromptMaskLoss(batch=False)(logits, mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_a_finite_float32_value(dtype):
    logits = torch.full((1, 1, 256, 256), 30.0, dtype=dtype)
    loss = SelfPromptMaskLoss()(logits, torch.zeros(1, 1, 256, 256))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_any_positive_value_of_a_mask_is_inside():
    logits, mask = pair(1, 1, 8, 8)
    assert SelfPromptMaskLoss()(logits, mask) == SelfPromptMaskLoss()(logits, mask.to(torch.uint8) * 255)


def test_descending_the_loss_finds_the_mask():
    _, mask = pair(1, 1, 8, 8)
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    SelfPromptMaskLoss()(logits, mask).backward()
    assert torch.equal(logits.grad < 0, mask)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match="Resize one to the other first"):
        SelfPromptMaskLoss()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 16, 16))


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="median"):
        SelfPromptMaskLoss(reduction="median")
