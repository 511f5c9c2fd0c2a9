# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The Triton form of local attention against the definition; on a CPU in Triton's interpreter, so on tiny maps."""

from types import SimpleNamespace

import pytest
import torch

from monai_effsam.errors import MissingExtraError, ShapeError, UsageError
from monai_effsam.networks.layers.local_attention import AttentionWindow, local_attention, triton_form
from monai_effsam.networks.layers.local_attention.triton_form import (
    attend_in_triton,
    check_triton,
    triton_serves,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KIND, LIMIT = (torch.float64, 1e-12) if DEVICE == "cpu" else (torch.float32, 2e-4)
FORMS = [pytest.param(True, id="products"), pytest.param(False, id="sums")]


@pytest.fixture(autouse=True)
def _triton():
    pytest.importorskip("triton", reason="Triton is not installed: its form of local attention is not tested")


def attend(products, heads, *window):
    """A function of q, k and v."""
    return lambda q, k, v: attend_in_triton(
        q, k, v, heads, AttentionWindow(*window), (q.shape[1] // heads) ** -0.5, products
    )


def with_gradients(function, maps):
    *maps, grad = maps
    leaves = [x.detach().clone().requires_grad_() for x in maps]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def same(found, want, limit=LIMIT):
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), rtol=0, atol=limit)


# products, shape, heads, size, dilation, border, channels_last
CASES = [
    (True, (2, 6, 5, 7), 2, (3, 3), (1, 1), "zero", False),
    (True, (1, 5, 9, 10), 1, (5, 1), (1, 2), "zero", True),
    (True, (1, 4, 10, 3), 1, (7, 7), (1, 1), "zero", False),
    (True, (1, 3, 5, 9), 3, (1, 5), (1, 1), "mask", False),
    (True, (1, 3, 11, 4), 1, (7, 7), (2, 1), "mask", True),
    (True, (1, 4, 5, 5), 1, (3, 3), (3, 1), "circular", False),
    (True, (1, 20, 4, 4), 1, (7, 7), (1, 1), "circular", True),
    (True, (1, 17, 1, 1), 1, (7, 7), (1, 1), "zero", False),
    (False, (2, 2, 5, 7), 2, (3, 1), (1, 1), "zero", False),
    (False, (1, 3, 9, 4), 1, (1, 5), (1, 1), "zero", True),
    (False, (1, 5, 3, 4), 1, (7, 7), (1, 1), "mask", False),
    (False, (1, 3, 7, 5), 1, (5, 1), (2, 1), "mask", True),
    (False, (1, 4, 6, 7), 1, (3, 3), (1, 1), "circular", False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(part) for part in case))
def test_equals_the_definition(case, by_unfold, noise):
    products, shape, heads, size, dilation, border, last = case
    maps = [noise(*shape).to(DEVICE, KIND) for _ in range(4)]
    given = [x.contiguous(memory_format=torch.channels_last) for x in maps] if last else maps
    window = AttentionWindow(size, dilation, border)
    found = with_gradients(attend(products, heads, size, dilation, border), given)
    same(found, with_gradients(lambda q, k, v: by_unfold(q, k, v, window, heads), maps))


@pytest.mark.parametrize("products", FORMS)
def test_reads_slices_of_one_map_without_a_copy(products, by_unfold, noise, monkeypatch):
    whole, grad = noise(1, 12, 3, 4).to(DEVICE, KIND), noise(1, 4, 3, 4).to(DEVICE, KIND)
    want = with_gradients(lambda q, k, v: by_unfold(q, k, v, AttentionWindow()), (*whole.chunk(3, 1), grad))
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda *a, **b: pytest.fail("a map was copied"))
    for order in (torch.contiguous_format, torch.channels_last):
        maps = [*whole.clone(memory_format=order).chunk(3, 1), grad.clone(memory_format=order)]
        leaves = [x.detach().requires_grad_() for x in maps[:3]]
        out = attend(products, 1)(*leaves)
        assert out.is_contiguous(memory_format=order)
        same([out.detach(), *torch.autograd.grad(out, leaves, maps[3])], want)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 6), (1, 2, 6, 1), (1, 1, 3, 3)], ids=str)
def test_other_orders_of_memory_are_put_right(by_unfold, noise, shape):
    maps = [noise(*shape).to(DEVICE, KIND) for _ in range(3)]
    want = by_unfold(*maps, AttentionWindow())
    odd = maps[0].transpose(2, 3).contiguous().transpose(2, 3), maps[1][..., :1].expand(*shape), maps[2]
    same([attend(True, 1)(odd[0], maps[1], odd[2])], [want])
    same([attend(True, 1)(maps[0], odd[1], odd[2])], [by_unfold(maps[0], odd[1], maps[2], AttentionWindow())])


@pytest.mark.parametrize("products", FORMS)
@pytest.mark.parametrize(("kind", "limit"), [(torch.float16, 0.0014), (torch.bfloat16, 0.011)], ids=str)
def test_half_precision_is_summed_in_single(products, noise, by_unfold, kind, limit):
    if products and kind == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16")
    maps = [noise(1, 16, 4, 6).to(DEVICE, kind) for _ in range(4)]
    found = with_gradients(attend(products, 1, (3, 3)), maps)
    want = with_gradients(lambda *m: by_unfold(*m, AttentionWindow()), [x.to(KIND) for x in maps])
    assert all(x.dtype == kind for x in found)
    same(found[:1], want[:1], limit)
    same(found[1:], want[1:], 4 * limit)


@pytest.mark.parametrize("products", FORMS)
def test_logits_of_any_size_stay_finite(products, noise, by_unfold):
    q, k, v, grad = (noise(1, 2, 4, 5).to(DEVICE, KIND) for _ in range(4))
    window = (3, 1), (1, 1), "mask"
    found = with_gradients(attend(products, 1, *window), (1e6 * q, k, v, grad))
    same(found[:1], [by_unfold(1e6 * q, k, v, AttentionWindow(*window))])
    assert all(one.isfinite().all() for one in found)


@pytest.mark.parametrize("products", FORMS)
def test_gradients_are_those_of_the_function(products, noise):
    if products and DEVICE != "cpu":
        pytest.skip("products of double precision are for the interpreter")
    maps = [noise(1, 2, 3, 4).to(DEVICE).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(attend(products, 1, (1, 3)), maps, fast_mode=True)


def test_second_derivatives_are_refused(noise):
    maps = [noise(1, 2, 3, 4).to(DEVICE).requires_grad_() for _ in range(3)]
    (first,) = torch.autograd.grad(attend(False, 1, (1, 3))(*maps).sin().sum(), maps[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_is_a_form_by_name_only_where_there_is_no_gpu(noise):
    maps = [noise(1, 4, 4, 5).to(DEVICE).half() for _ in range(3)]
    found = local_attention(*maps, AttentionWindow(), heads=2, form="triton")
    assert found.dtype == torch.float16
    assert torch.equal(found, attend(None, 2)(*maps))
    assert triton_serves(maps[0], 2) == (DEVICE == "cuda")


# The choices


def test_products_are_taken_where_the_hardware_has_them(monkeypatch):
    def chosen(channels, kind):
        return triton_form._products_pay(torch.empty(1, channels, 1, 1, dtype=kind, device=DEVICE), channels)

    assert [chosen(c, torch.float16) for c in (15, 16, 128)] == [False, True, True]
    assert [chosen(c, torch.float32) for c in (15, 16, 32, 33)] == [False, False, False, True]
    assert not chosen(32, torch.float64)
    assert chosen(32, torch.bfloat16) == (DEVICE == "cuda")
    monkeypatch.setattr(triton_form, "_precision", lambda: "tf32")
    assert [chosen(c, torch.float32) for c in (15, 16)] == [False, True]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"fp32_precision": "tf32"}, "tf32"),
        ({"fp32_precision": "none"}, "ieee"),
        ({"allow_tf32": True}, "tf32"),
    ],
)
def test_single_precision_is_multiplied_as_torch_was_told(setting, name, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**setting))
    assert triton_form._precision() == name


def test_what_cannot_be_is_said_in_a_line(monkeypatch):
    x = torch.zeros(1, 200, 2, 2)
    with pytest.raises(ShapeError, match=r"expected at most 256 bytes.* Take the form 'auto'"):
        local_attention(x, x, x, AttentionWindow(), form="triton")
    with pytest.raises(UsageError, match="Take the form 'offsets'"):
        local_attention(x, x, x, AttentionWindow(), dropout=0.1, form="triton")
    monkeypatch.setattr(triton_form, "_is_interpreted", lambda: False)
    with pytest.raises(
        UsageError, match=r"expected a CUDA device. Move them to one, or take the form 'auto'"
    ):
        check_triton(x, 8)
    monkeypatch.setattr(triton_form, "_is_installed", lambda: False)
    with pytest.raises(MissingExtraError, match="pip install triton"):
        check_triton(x, 8)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_first_try_that_agrees_lets_the_kernels_serve(kind):
    triton_form.agrees.cache_clear()
    assert triton_form.agrees(torch.device("cpu"), kind, 4)


def test_kernels_that_are_off_do_not_serve(monkeypatch, caplog):
    triton_form.agrees.cache_clear()
    right = triton_form.attend_in_triton
    monkeypatch.setattr(triton_form, "attend_in_triton", lambda q, *rest: right(q * 1.5, *rest))
    assert not triton_form.agrees(torch.device("cpu"), torch.float32, 4)
    assert "off on cpu, so they are not used" in caplog.text


def test_kernels_that_do_not_compile_do_not_serve(monkeypatch, caplog):
    triton_form.agrees.cache_clear()

    def broken(*_):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(triton_form, "attend_in_triton", broken)
    assert not triton_form.agrees(torch.device("cpu"), torch.float32, 4)
    assert "do not run on cpu: no such instruction" in caplog.text
    triton_form.agrees.cache_clear()
