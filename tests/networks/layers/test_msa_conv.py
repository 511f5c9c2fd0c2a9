# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""MSA-Conv as a layer: sizes, parameters, forms, number formats, refusals."""

import copy

import pytest
import torch
import torch.nn.functional as F

from monai_effsam.errors import ShapeError, SpecError
from monai_effsam.networks.layers import MSAConv2d


def size_of(layer):
    return sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "count"), [(64, 128, 3, 86_208), (16, 16, 7, 13_360), (32, 64, 1, 5_216)]
)
def test_parameters_follow_the_formula(channels, out, kernel, count):
    assert size_of(MSAConv2d(channels, out, kernel)) == count
    more = {"dilation": 2, "heads": 4, "shift": 3, "inter_pool": 3, "border": "mask"}
    assert size_of(MSAConv2d(channels, out, kernel, **more)) == count
    assert size_of(MSAConv2d(channels, out, kernel, bias=True)) == count + out
    assert size_of(MSAConv2d(channels, out, kernel, qkv_bias=False)) == count - 3 * channels
    pointwise = MSAConv2d(channels, out, kernel, projection="pointwise")
    assert size_of(pointwise) == count - (kernel**2 - 1) * channels * out
    assert size_of(MSAConv2d(channels, channels, kernel, projection="none")) == 3 * channels**2 + 3 * channels
    depthwise = MSAConv2d(channels, channels, kernel, depthwise=True)
    assert size_of(depthwise) == 3 * channels**2 + 3 * channels + kernel**2 * channels


@torch.no_grad()
def test_kernel_of_one_is_a_residual_linear_map(noise):
    layer, x = MSAConv2d(4, 6, 1, projection="pointwise").double(), noise(2, 4, 5, 6)
    v = F.conv2d(x, layer.qkv.weight[8:], layer.qkv.bias[8:])
    torch.testing.assert_close(layer(x), F.relu(F.conv2d(v + x, layer.projection.weight)))


@torch.no_grad()
def test_parts_follow_each_other(noise):
    layer, x = MSAConv2d(4, 6, (5, 3), (2, 1), heads=2).double(), noise(2, 4, 9, 8)
    want = F.relu(F.conv2d(layer.attend(x) + x, layer.projection.weight, stride=(2, 1), padding=(2, 1)))
    torch.testing.assert_close(layer(x), want)
    layer.residual, layer.act = False, None
    want = F.conv2d(layer.attend(x), layer.projection.weight, stride=(2, 1), padding=(2, 1))
    torch.testing.assert_close(layer(x), want)
    assert (want < 0).any()


@pytest.mark.parametrize(("stride", "sides"), [(1, (15, 16, 17)), (2, (8, 8, 9)), (3, (5, 6, 6))])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("projection", ["conv", "pointwise", "none"])
@torch.no_grad()
def test_stride_acts_in_the_projection(noise, stride, sides, kernel, projection):
    layer = MSAConv2d(4, 4, kernel, stride, dilation=2, projection=projection).double()
    dense = copy.deepcopy(layer)
    dense.stride = (1, 1)
    if dense.projection is not None:
        dense.projection.stride = (1, 1)
    for side, want in zip((15, 16, 17), sides, strict=True):
        x = noise(1, 4, side, side + 1)
        out = layer(x)
        assert out.shape[2] == want
        torch.testing.assert_close(out, dense(x)[:, :, ::stride, ::stride], rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 1)])
@pytest.mark.parametrize(
    "options", [{}, {"heads": 2, "shift": 9}, {"inter_pool": 3}, {"depthwise": True}], ids=str
)
@torch.no_grad()
def test_any_map_will_do(noise, shape, options):
    for border in ("zero", "mask"):
        out = MSAConv2d(4, 4, 7, border=border, **options).double()(noise(2, 4, *shape))
        assert out.shape == (2, 4, *shape)
        assert out.isfinite().all()


@torch.no_grad()
def test_depthwise_mixes_channels_in_the_first_layer_only(noise):
    layer, x = MSAConv2d(4, 8, depthwise=True).double(), noise(1, 4, 7, 7)
    layer.qkv.weight.zero_()
    layer.qkv.weight[:4, :, 0, 0] = layer.qkv.weight[4:8, :, 0, 0] = layer.qkv.weight[8:, :, 0, 0] = (
        torch.eye(4)
    )
    other = x.clone()
    other[:, 2] += noise(7, 7)
    changed = (layer(x) != layer(other)).flatten(2).any(2)[0].nonzero().flatten().tolist()
    assert set(changed) <= {4, 5}
    assert changed


@torch.no_grad()
def test_circular_border_holds_for_the_projection(noise):
    layer, x = MSAConv2d(4, 4, border="circular").double(), noise(1, 4, 8, 9)
    torch.testing.assert_close(layer(x.roll((3, 4), (2, 3))), layer(x).roll((3, 4), (2, 3)))


@torch.no_grad()
def test_dropout_is_for_training(noise):
    layer, x = MSAConv2d(4, 4, dropout=0.5).double(), noise(1, 4, 8, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    "options", [{"heads": 2}, {"depthwise": True}, {"shift": 2, "heads": 4, "inter_pool": 3}]
)
def test_gradients_of_the_whole_layer(noise, options):
    layer = MSAConv2d(4, 4, act=None, **options).double()
    assert torch.autograd.gradcheck(layer, noise(1, 4, 4, 5).requires_grad_())


@pytest.mark.parametrize(
    "options", [{"heads": 2}, {"depthwise": True}, {"shift": 2, "heads": 2, "inter_pool": 2}]
)
def test_trains_under_autocast(noise, options):
    layer, x = MSAConv2d(16, 16, **options), noise(2, 16, 9, 9).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in (x, *layer.parameters()))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_runs_in_half_precision(noise, kind):
    layer, x = MSAConv2d(16, 8, heads=2), noise(1, 16, 9, 9).float()
    found = copy.deepcopy(layer).to(kind)(x.to(kind))
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.05)


def test_a_layer_that_cannot_be_is_refused():
    for kernel in (2, 4, (3, 2)):
        with pytest.raises(SpecError, match="Take the next odd number"):
            MSAConv2d(8, 8, kernel)
    with pytest.raises(SpecError, match="heads is 3 for 8 channels, expected a divisor"):
        MSAConv2d(8, 8, heads=3)
    with pytest.raises(SpecError, match=r"Give the same number, or projection='pointwise'"):
        MSAConv2d(8, 6, projection="none")
    with pytest.raises(SpecError, match="expected a multiple of 8"):
        MSAConv2d(8, 12, depthwise=True)
    with pytest.raises(SpecError, match="expected one of conv, pointwise, none"):
        MSAConv2d(8, 8, projection="linear")
    with pytest.raises(SpecError, match="expected 'relu' or None"):
        MSAConv2d(8, 8, act="gelu")
    with pytest.raises(ShapeError, match="larger than the padded map"):
        MSAConv2d(8, 8, 7, border="circular", inter_pool=3)(torch.zeros(1, 8, 4, 4))
