# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Presence probabilities after calibration mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.calibration import calibrate_presence, fit_platt, window_beside
from monai_effsam.networks.decoders import QueryDecoded
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import Target

TARGETS = [Target("a", "ct", 1, (0, 0, 0), "", ""), Target("b", "ct", 2, (0, 0, 0), "", "")]
SPECS = {"ct": ImageSpec(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))}


def drawn(scale, shift, count=20_000, spread=3.0):
    random = np.random.RandomState(0)
    logit = random.randn(count) * spread
    return logit, (random.rand(count) < 1 / (1 + np.exp(-scale * logit - shift))).astype(float)


def loss(scale, shift, logit, label, prior):
    z = scale * logit + shift
    return np.sum(np.logaddexp(0, z) - label * z) + prior * len(z) / 2 * ((scale - 1) ** 2 + shift**2)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.4, 1.5), (2.0, -1.0), (0.1, -3.0)])
def test_known_scale_and_shift_are_recovered(scale, shift):
    found = fit_platt(*drawn(scale, shift), prior=1e-6)
    assert found == pytest.approx((scale, shift), rel=0.08, abs=0.06)


def test_prior_pulls_but_little():
    scale, shift = fit_platt(*drawn(0.4, 1.5))
    assert 0.35 < scale < 0.6
    assert 1.2 < shift < 1.5


@pytest.mark.parametrize("prior", [0.02, 0.5])
def test_nothing_near_is_better(prior):
    logit, label = drawn(0.4, 1.5, count=200)
    scale, shift = fit_platt(logit, label, prior)
    near = [
        loss(scale + a, shift + b, logit, label, prior) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)
    ]
    assert min(near) == near[4]


@pytest.mark.parametrize("gap", [0.1, 5.0, 40.0])
def test_separable_cases_stay_finite_and_in_order(gap):
    scale, shift = fit_platt(np.array([-gap] * 6 + [gap] * 6), np.array([0.0] * 6 + [1.0] * 6))
    assert 0.05 <= scale < 100
    assert abs(shift) < 1e-6


def test_saturated_logits_with_a_few_mistakes_do_not_run_away():
    logit = np.array([-30.0] * 50 + [30.0] * 50)
    label = np.array([0.0] * 45 + [1.0] * 5 + [0.0] * 5 + [1.0] * 45)
    scale, shift = fit_platt(logit, label, prior=1e-6)
    assert 1 / (1 + np.exp(-30 * scale - shift)) == pytest.approx(0.9, abs=0.01)


def test_scale_never_turns_the_order_round():
    assert fit_platt(*drawn(-2.0, 0.0, count=500))[0] == 0.05


# The network


@pytest.fixture
def network():
    """Its presence logit of both targets is ten times the mean of the picture, less five."""
    torch.manual_seed(0)
    net = EspMedSam(
        {"name": "timm", "model": "mobilenetv3_small_050", "embed_channels": 32, "heads": 2},
        TARGETS,
        decoder={"mlp_dim": 16, "hyper_dim": 8, "channels": (8, 8, 8)},
    )
    seen = []
    encode, decode = net.encode, net.decoder.forward
    net.encode = lambda image, modality: seen.append(image) or encode(image, modality)

    def bright(*args):
        found = decode(*args)
        logit = seen[-1].mean((1, 2, 3))[:, None] * 10 - 5
        return QueryDecoded(found.mask_logits, found.quality, logit.expand(-1, 2))

    net.decoder.forward = bright
    return net


def bright_slices(count, known=(True, True)):
    """Target a is there in the brighter half, target b nowhere."""
    found = []
    for i in range(count):
        label = np.zeros((32, 32), np.uint8)
        label[4:9, 4:9] = i >= count / 2
        found.append(
            LabelledSlice(
                np.full((32, 32, 3), round(255 * i / (count - 1)), np.uint8), label, "ct", "s", str(i), known
            )
        )
    return found


def test_scale_and_shift_of_each_target_go_into_the_network(network):
    report = calibrate_presence(network, bright_slices(12), SPECS, batch=5)
    assert list(report) == ["ct/a"]
    assert (report["ct/a"]["present"], report["ct/a"]["absent"]) == (6, 6)
    assert network.presence_scale.tolist() == pytest.approx([report["ct/a"]["scale"], 1.0])
    assert network.presence_shift.tolist() == pytest.approx([report["ct/a"]["shift"], 0.0])
    assert report["ct/a"]["scale"] != 1
    want = fit_platt(np.linspace(0, 1, 12).round(2) * 10 - 5, np.repeat([0.0, 1.0], 6))
    assert (report["ct/a"]["scale"], report["ct/a"]["shift"]) == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize(("count", "known"), [(8, (True, True)), (12, (False, True)), (0, (True, True))])
def test_too_few_cases_change_nothing(network, count, known):
    assert calibrate_presence(network, bright_slices(count, known), SPECS) == {}
    assert network.presence_scale.tolist() == [1, 1]
    assert network.presence_shift.tolist() == [0, 0]


def test_pictures_of_another_set_are_no_evidence_of_absence(network):
    """Set s holds target a in every picture; t, which knows that it has none, holds it in no one."""
    slices = bright_slices(12)
    apart = [replace(s, stratum="s/sick" if s.label.any() else "t") for s in slices]
    found = calibrate_presence(network, apart, SPECS)["ct/a"]
    assert (found["present"], found["absent"], found["windows"]) == (
        6,
        6,
        6,
    )  # t's pictures are not among them
    together = [replace(s, stratum="s/sick" if s.label.any() else "s/well") for s in slices]
    found = calibrate_presence(network, together, SPECS)["ct/a"]
    assert (found["absent"], found["windows"]) == (
        6,
        0,
    )  # where there are empty pictures, no window stands in


def test_windows_of_a_bright_picture_without_the_target_lower_its_presence(network):
    """The network takes brightness for the target; windows beside it are as bright, and hold nothing."""
    slices = [s for s in bright_slices(24) if s.label.any()]
    found = calibrate_presence(network, slices, SPECS)["ct/a"]
    assert found["windows"] == found["absent"] == 12
    assert found["scale"] < 0.5  # brightness tells little


@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [
        ((4, 9), (4, 9), (32, 31)),
        ((0, 30), (0, 10), (32, 30)),
        ((10, 22), (10, 30), None),
        ((0, 0), (0, 0), None),
    ],
)
def test_the_window_is_the_largest_part_beside_the_label(rows, columns, shape):
    label = np.zeros((32, 40), np.uint8)
    label[slice(*rows), slice(*columns)] = 2
    image = np.arange(32 * 40 * 3, dtype=np.uint16).astype(np.uint8).reshape(32, 40, 3)
    window = window_beside(LabelledSlice(image, label, "ct", "s", "c", (True, True)))
    if shape is None:
        assert window is None
        return
    assert window.image.shape == (*shape, 3)
    assert window.label.shape == shape
    assert not window.label.any()
    assert window.image.tobytes() in {
        np.ascontiguousarray(part).tobytes() for part in (image[:, 9:], image[:, 10:])
    }
