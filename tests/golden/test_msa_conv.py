# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Numbers of the released operator and layer of TiC on hashed inputs, read off its equations in float64."""

import pytest
import torch

from monai_effsam.networks.layers import MSAConv2d
from monai_effsam.networks.layers.local_attention import FORMS, AttentionWindow, local_attention

CORE = [
    ((3, 3), 1, 1, "zero", 0.030907, 0.400840, (0.304859, 0.369307, 0.221996)),
    ((3, 3), 1, 1, "mask", 0.032964, 0.415546, (0.372746, 0.369307, 0.238675)),
    ((3, 3), 1, 2, "zero", -0.004229, 0.407192, (0.527376, 0.611318, 0.003384)),
    ((3, 3), 1, 2, "mask", -0.003218, 0.423728, (0.548721, 0.611318, 0.004988)),
    ((5, 3), 2, 4, "zero", -0.027481, 0.327913, (0.417539, -0.251282, 0.156172)),
    ((5, 3), 2, 4, "mask", -0.031446, 0.371085, (0.418059, -0.285802, 0.179613)),
    ((3, 3), 1, 8, "zero", -0.026766, 0.349289, (0.317984, 0.063631, 0.275904)),
    ((3, 3), 1, 8, "mask", -0.029301, 0.372980, (0.318581, 0.063631, 0.321623)),
    ((7, 7), 1, 1, "zero", 0.010850, 0.345730, (0.271844, -0.186881, -0.017087)),
    ((7, 7), 1, 1, "mask", 0.012193, 0.360026, (0.404161, -0.188188, -0.020654)),
]
"""Window, dilation, heads, border; mean, standard deviation, values at [0, 0, 0, 0], [0, 3, 2, 3], [0, 7, 5, 6]."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "dilation", "heads", "border", "mean", "std", "values"), CORE)
def test_core(hashed, form, size, dilation, heads, border, mean, std, values):
    q, k, v = 3 * hashed("q", 1, 8, 6, 7), 3 * hashed("k", 1, 8, 6, 7), hashed("v", 1, 8, 6, 7)
    out = local_attention(q, k, v, AttentionWindow(size, (dilation,) * 2, border), heads=heads, form=form)
    found = (out.mean(), out.std(), out[0, 0, 0, 0], out[0, 3, 2, 3], out[0, 7, 5, 6])
    assert [float(x) for x in found] == pytest.approx([mean, std, *values], abs=6e-7)


@pytest.mark.parametrize(
    ("stride", "shape", "mean", "std"),
    [(1, (1, 6, 6, 7), 0.524110, 0.741999), (2, (1, 6, 3, 4), 0.393173, 0.625177)],
)
def test_layer_of_the_release(hashed, stride, shape, mean, std):
    layer = MSAConv2d(8, 6, stride=stride).double()
    with torch.no_grad():
        for ours, theirs in ((layer.qkv, "qkv_conv"), (layer.projection, "mlp")):
            weight = hashed(f"{theirs}.weight", *ours.weight.shape)
            ours.weight.copy_(weight * (3 / weight[0].numel()) ** 0.5)
        layer.qkv.bias.copy_(0.05 * hashed("qkv_conv.bias", 24))
        out = layer(2 * hashed("x", 1, 8, 6, 7))
    assert out.shape == shape
    assert [float(out.mean()), float(out.std())] == pytest.approx([mean, std], abs=6e-7)
    if stride == 1:
        found = [float(out[at]) for at in ((0, 0, 0, 0), (0, 3, 2, 3), (0, 5, 5, 6), (0, 0, 2, 2))]
        assert found == pytest.approx([0, 0.060150, 0.482565, 0], abs=6e-7)
        assert int((out == 0).sum()) == 116
