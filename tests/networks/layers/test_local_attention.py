# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Local attention in all its forms: against the definition, and what must hold whatever the form."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_effsam.errors import ShapeError, SpecError, UnknownNameError, UsageError
from monai_effsam.networks.layers.local_attention import BORDERS, FORMS, AttentionWindow, local_attention

WINDOWS = [(3, 3), (5, 1), (1, 5), (7, 7)]


@pytest.fixture(params=[form for form in FORMS if form not in ("auto", "triton")])  # test_triton_form.py
def form(request):
    return request.param


@pytest.fixture(params=BORDERS)
def border(request):
    return request.param


def core(q, k, v, size=3, dilation=1, border="zero", **options):
    pair = (size, size) if isinstance(size, int) else size
    return local_attention(q, k, v, AttentionWindow(pair, (dilation, dilation), border), **options)


def gradients(function, maps, grad):
    maps = [x.detach().requires_grad_() for x in maps]
    return torch.autograd.grad(function(*maps), maps, grad)


def rounding(found, want, limit=1e-12):
    torch.testing.assert_close(found, want, rtol=0, atol=limit)


# The definition


@pytest.mark.parametrize("size", WINDOWS)
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_equals_the_definition(form, by_unfold, noise, size, dilation, heads):
    q, k, v, grad = (noise(2, 8, 11, 19) for _ in range(4))
    window = AttentionWindow(size, (dilation, dilation))
    rounding(local_attention(q, k, v, window, heads=heads, form=form), by_unfold(q, k, v, window, heads))
    found = gradients(lambda *m: local_attention(*m, window, heads=heads, form=form), (q, k, v), grad)
    want = gradients(lambda *m: by_unfold(*m, window, heads), (q, k, v), grad)
    for one, other in zip(found, want, strict=True):
        rounding(one, other)


@pytest.mark.parametrize("shape", [(2, 4, 9, 9), (1, 4, 40, 35), (3, 4, 18, 33)], ids=str)
@pytest.mark.parametrize(("size", "dilation"), [((7, 3), (2, 3)), ((3, 5), (1, 2))])
def test_equals_the_definition_at_every_border(form, border, by_unfold, noise, shape, size, dilation):
    q, k, v, grad = (noise(*shape) for _ in range(4))
    window = AttentionWindow(size, dilation, border)
    rounding(local_attention(q, k, v, window, heads=2, form=form), by_unfold(q, k, v, window, 2))
    found = gradients(lambda *m: local_attention(*m, window, heads=2, form=form), (q, k, v), grad)
    want = gradients(lambda *m: by_unfold(*m, window, 2), (q, k, v), grad)
    for one, other in zip(found, want, strict=True):
        rounding(one, other)


def test_the_order_of_memory_does_not_matter(form, border, noise):
    maps = [noise(2, 8, 12, 9) for _ in range(4)]
    last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    rounding(core(*last[:3], border=border, form=form), core(*maps[:3], border=border, form=form))
    found = gradients(lambda *m: core(*m, border=border, form=form), last[:3], last[3])
    want = gradients(lambda *m: core(*m, border=border, form=form), maps[:3], maps[3])
    for one, other in zip(found, want, strict=True):
        rounding(one, other)


def test_one_position_sees_only_itself(form, noise):
    q, k, v = (noise(1, 4, 5, 6) for _ in range(3))
    rounding(core(q, k, v, 1, form=form), v, 0)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("silent", [0, 1])
def test_without_query_or_key_it_is_the_mean(form, noise, size, silent):
    maps = [noise(1, 4, 9, 10) for _ in range(3)]
    maps[silent].zero_()
    for border, counted in (("zero", True), ("mask", False)):
        want = F.avg_pool2d(maps[2], size, 1, size // 2, count_include_pad=counted)
        rounding(core(*maps, size, border=border, form=form), want)


def test_values_of_one(form, border, noise):
    q, k = noise(1, 4, 8, 9), noise(1, 4, 8, 9)
    out = core(q, k, torch.ones_like(q), border=border, form=form)
    rounding(out[:, :, 1:-1, 1:-1], torch.ones(1, 4, 6, 7, dtype=q.dtype))
    edge = torch.cat([out[:, :, 0].flatten(), out[:, :, :, -1].flatten()])
    if border == "zero":
        assert edge.max() < 0.999
    else:
        rounding(edge, torch.ones_like(edge))


def test_constant_map_by_hand(form):
    x = torch.full((1, 4, 5, 5), 0.7, dtype=torch.float64)
    out = core(x, x, x, form=form)[0, 0]
    exp = math.exp(0.7**2 * 2)
    by_hand = [0.7 * n * exp / (n * exp + 9 - n) for n in (4, 6, 9)]
    assert by_hand == pytest.approx([0.4764695922, 0.5893964798, 0.7], abs=1e-9)
    assert [float(out[0, 0]), float(out[0, 2]), float(out[2, 2])] == pytest.approx(by_hand, abs=1e-12)


def test_one_position_alone_against_a_window_of_zeros(form, noise):
    q, k, v = (noise(1, 4, 1, 1) for _ in range(3))
    exp = math.exp(float((q * k).sum()) / 2)
    rounding(core(q, k, v, 7, form=form), v * exp / (exp + 48))


# Symmetries


def test_linear_in_the_values_and_scales_cancel(form, border, noise):
    q, k, v, w = (noise(1, 8, 6, 7) for _ in range(4))

    def attend(values):
        return core(q, k, values, heads=2, border=border, form=form)

    rounding(attend(2 * v - 3 * w), 2 * attend(v) - 3 * attend(w))
    rounding(core(4 * q, k / 4, v, heads=2, border=border, form=form), attend(v), 0)


def test_a_vector_added_to_all_keys_is_seen_at_zero_borders_only(form, noise):
    q, k, v, more = noise(1, 4, 8, 8), noise(1, 4, 8, 8), noise(1, 4, 8, 8), 5 * noise(1, 4, 1, 1)
    zero = core(q, k + more, v, form=form) - core(q, k, v, form=form)
    assert zero[:, :, 1:-1, 1:-1].abs().max() < 1e-12
    assert zero.abs().max() > 0.1
    rounding(core(q, k + more, v, border="mask", form=form), core(q, k, v, border="mask", form=form))


def test_output_lies_between_the_values_of_the_window(form, noise):
    q, k, v = (3 * noise(2, 6, 9, 7) for _ in range(3))
    out, padded = core(q, k, v, heads=2, form=form), F.pad(v, (1, 1, 1, 1))
    assert (out <= F.max_pool2d(padded, 3, 1) + 1e-12).all()
    assert (out >= -F.max_pool2d(-padded, 3, 1) - 1e-12).all()


@pytest.mark.parametrize("dilation", [1, 2])
def test_moves_with_its_input(form, noise, dilation):
    maps, by = [noise(1, 4, 13, 14) for _ in range(3)], (2, -3)
    moved = [x.roll(by, (2, 3)) for x in maps]
    far = core(*moved, dilation=dilation, form=form) - core(*maps, dilation=dilation, form=form).roll(
        by, (2, 3)
    )
    reach = dilation + 3
    assert far[:, :, reach:-reach, reach:-reach].abs().max() < 1e-12
    assert far.abs().max() > 0.01
    options = {"dilation": dilation, "border": "circular", "form": form}
    rounding(core(*moved, **options), core(*maps, **options).roll(by, (2, 3)))


@pytest.mark.parametrize(
    "change",
    [lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.transpose(2, 3), lambda x: x.rot90(1, (2, 3))],
    ids=["rows", "columns", "transpose", "rotation"],
)
def test_mirrors_and_turns_with_its_input(form, border, noise, change):
    maps = [noise(1, 4, 9, 8) for _ in range(3)]
    turned = change(maps[0]).shape != maps[0].shape
    found = core(*(change(x) for x in maps), (3, 5) if turned else (5, 3), border=border, form=form)
    rounding(found, change(core(*maps, (5, 3), border=border, form=form)))


def test_channels_may_change_places_inside_a_head(form, noise):
    q, k, v = (noise(1, 8, 6, 6) for _ in range(3))
    order = torch.tensor([2, 0, 3, 1, 4, 7, 5, 6])  # inside each of two heads
    out = core(q, k, v, heads=2, form=form)
    rounding(core(q[:, order], k[:, order], v, heads=2, form=form), out)
    rounding(core(q, k, v[:, order], heads=2, form=form), out[:, order])


def test_heads_are_calls_of_their_own(form, border, noise):
    q, k, v = (noise(2, 8, 6, 7) for _ in range(3))
    for heads in (2, 4, 8):
        parts = zip(*(x.chunk(heads, 1) for x in (q, k, v)), strict=True)
        want = torch.cat([core(*part, border=border, form=form) for part in parts], 1)
        rounding(core(q, k, v, heads=heads, border=border, form=form), want)


# Limits


def test_window_over_everything_is_global_attention(form, noise):
    q, k, v = (noise(1, 4, 5, 5) for _ in range(3))
    tokens = [x.flatten(2).transpose(1, 2) for x in (q, k, v)]
    want = F.scaled_dot_product_attention(*tokens).transpose(1, 2).view(q.shape)
    rounding(core(q, k, v, 9, border="mask", form=form), want)
    tokens[1:] = [F.pad(x, (0, 0, 0, 9 * 9 - 25)) for x in tokens[1:]]  # 56 keys and values of zeros
    want = F.scaled_dot_product_attention(*tokens).transpose(1, 2).view(q.shape)
    rounding(core(q, k, v, 9, form=form), want)


@pytest.mark.parametrize(("size", "dilation"), [((3, 3), 1), ((5, 3), 2), ((7, 7), 1)])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_zeros_beyond_the_border_only_take_weight(form, by_unfold, noise, size, dilation, heads):
    q, k, v = (noise(1, 8, 6, 7) for _ in range(3))
    zero, mask = (core(q, k, v, size, dilation, b, heads=heads, form=form) for b in ("zero", "mask"))
    window = AttentionWindow(size, (dilation, dilation))
    ones = torch.ones_like(v)
    rounding(zero, mask * by_unfold(q, k, ones, window, heads))  # Z / (Z + m)


def test_logits_of_any_size_stay_finite(form, border, by_unfold, noise):
    q, k, v, grad = (noise(1, 8, 6, 7) for _ in range(4))
    window = AttentionWindow((3, 3), (1, 1), border)
    rounding(core(1e6 * q, k, v, border=border, form=form), by_unfold(1e6 * q, k, v, window))
    for one in gradients(lambda *m: core(*m, border=border, form=form), (1e6 * q, k, v), grad):
        assert one.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 1)])
def test_maps_smaller_than_the_window(form, by_unfold, noise, shape):
    q, k, v = (noise(2, 4, *shape) for _ in range(3))
    for border in ("zero", "mask"):
        window = AttentionWindow((7, 7), (2, 1), border)
        rounding(local_attention(q, k, v, window, heads=2, form=form), by_unfold(q, k, v, window, 2))


# Derivatives


@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients_are_those_of_the_function(form, border, noise, dilation):
    maps = [noise(1, 4, 4, 5).requires_grad_() for _ in range(3)]
    options = {"dilation": dilation, "heads": 2, "border": border, "form": form}
    assert torch.autograd.gradcheck(lambda *m: core(*m, **options), maps)


def test_second_derivatives_exist_or_are_refused(form, noise):
    maps = [noise(1, 4, 3, 4).requires_grad_() for _ in range(3)]
    if form == "plain":
        assert torch.autograd.gradgradcheck(lambda *m: core(*m, heads=2, form=form), maps)
    else:
        (first,) = torch.autograd.grad(core(*maps, form=form).sin().sum(), maps[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_values_get_the_weights_back(form, border, noise):
    q, k, v = (noise(1, 4, 7, 6) for _ in range(3))
    grads = gradients(lambda *m: core(*m, border=border, form=form), (q, k, v), torch.ones_like(v))
    rounding(grads[2].sum(), core(q, k, torch.ones_like(v), border=border, form=form).sum())


def test_two_runs_agree_to_the_bit(form, noise):
    maps = [noise(2, 8, 20, 19).float() for _ in range(4)]
    one, two = (gradients(lambda *m: core(*m, heads=2, form=form), maps[:3], maps[3]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(core(*maps[:3], form=form), core(*maps[:3], form=form))


# Number formats, dropout, memory


@pytest.mark.parametrize(("kind", "limit"), [(torch.float16, 0.0014), (torch.bfloat16, 0.011)])
def test_half_precision_is_computed_in_single(form, noise, kind, limit):
    maps = [noise(1, 32, 16, 16).to(kind) for _ in range(3)]
    found = core(*maps, 5, heads=2, form=form)
    want = core(*(x.float() for x in maps), 5, heads=2, form=form)
    assert found.dtype == kind
    assert torch.equal(found, want.to(kind))
    assert (found.float() - want).abs().max() < limit
    leaves = [x.requires_grad_() for x in maps]
    assert all(g.dtype == kind for g in torch.autograd.grad(core(*leaves, form=form).sum(), leaves))


def test_autocast_changes_nothing_inside(form, noise):
    maps = [noise(1, 8, 9, 9).float() for _ in range(4)]
    with torch.autocast("cpu", torch.bfloat16):
        found = core(*maps[:3], form=form)
        grads = gradients(lambda *m: core(*m, form=form), maps[:3], maps[3])
    assert torch.equal(found, core(*maps[:3], form=form))
    for one, other in zip(grads, gradients(lambda *m: core(*m, form=form), maps[:3], maps[3]), strict=True):
        assert torch.equal(one, other)


def test_dropout_keeps_the_mean_and_its_own_gradient(noise):
    torch.manual_seed(0)
    q, k, v = (noise(1, 4, 6, 6) for _ in range(3))
    runs = torch.stack([core(q, k, v, heads=2, dropout=0.3) for _ in range(2000)])
    spread = runs.std(0) / 2000**0.5
    assert ((runs.mean(0) - core(q, k, v, heads=2)).abs() < 5 * spread + 1e-12).all()
    assert runs.std(0).min() > 0

    def seeded(*maps):
        torch.manual_seed(1)
        return core(*maps, heads=2, dropout=0.3)

    assert torch.autograd.gradcheck(seeded, [noise(1, 4, 4, 5).requires_grad_() for _ in range(3)])


class Largest(TorchDispatchMode):
    """Remembers the largest storage that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.mark.parametrize("heads", [1, 2, 16])
def test_nothing_is_copied_k_times(by_unfold, noise, heads):
    maps = [noise(1, 16, 48, 48).float() for _ in range(4)]
    window = AttentionWindow((7, 7))
    with Largest() as seen:
        gradients(lambda *m: local_attention(*m, window, heads=heads), maps[:3], maps[3])
    assert seen.numel < 3 * maps[0].numel()
    with Largest() as seen:
        by_unfold(*maps[:3], window, heads)
    assert seen.numel == 49 * maps[0].numel()


# Refusals


@pytest.mark.parametrize("size", [(2, 3), (3, 4), (0, 1), (-1, 3)])
def test_even_windows_are_refused(size):
    with pytest.raises(SpecError, match="Take the next odd number"):
        AttentionWindow(size)


def test_other_windows_are_refused():
    with pytest.raises(SpecError, match="Give 1 for adjacent"):
        AttentionWindow((3, 3), (0, 1))
    with pytest.raises(SpecError, match="expected one of zero, mask, circular"):
        AttentionWindow((3, 3), (1, 1), "reflect")


def test_maps_that_do_not_fit_are_refused():
    x = torch.zeros(1, 6, 4, 4)
    with pytest.raises(SpecError, match="Choose one of 1, 2, 3, 6"):
        core(x, x, x, heads=4)
    with pytest.raises(ShapeError, match="Make them of one map"):
        core(x, x[:, :, 1:], x)
    with pytest.raises(ShapeError, match="expected at least 1 x 1"):
        core(*(torch.zeros(1, 6, 0, 4),) * 3)
    with pytest.raises(ShapeError, match=r"larger than the padded map.* Choose a smaller window"):
        core(x, x, x, 5, 3, "circular")
    assert core(x, x, x, 5, 2, "circular").shape == x.shape


def test_options_that_do_not_exist_are_refused():
    x = torch.zeros(1, 4, 4, 4)
    with pytest.raises(UnknownNameError, match="Did you mean 'tiles'"):
        core(x, x, x, form="tile")
    with pytest.raises(UsageError, match="expected 0 <= dropout < 1"):
        core(x, x, x, dropout=1.0)
    with pytest.raises(UsageError, match="Take the form 'offsets'"):
        core(x, x, x, dropout=0.1, form="tiles")
