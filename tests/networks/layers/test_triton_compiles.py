# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Triton's compiler takes the kernels, for GPUs that are not here: its interpreter forgives what others refuse."""

import json
import os
import subprocess
import sys

import pytest

_COMPILE = """
import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from monai_effsam.networks.layers.local_attention import AttentionWindow
from monai_effsam.networks.layers.local_attention.triton_form import _Call

capability, products, last, border, kind = json.loads(sys.argv[1])
call = _Call(1, AttentionWindow((3, 3), (1, 2), border), 0.25, products, last)
constants = call.constants(torch.empty(1, 16, 1, 1, dtype=getattr(torch, kind))) | {"ZEROS": border == "zero"}
options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
pointers = ("q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v")
found = {}
for name in ("attend", "to_queries", "to_keys_and_values"):
    kernel = getattr(call.kernels, name)
    types = {**dict.fromkeys(pointers, "*fp16" if kind == "float16" else "*fp32"), "sums": "*fp32", "means": "*fp32"}
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    values = {(kernel.arg_names.index(n),): value for n, value in constants.items() if n in kernel.arg_names}
    compiled = triton.compile(ASTSource(kernel, signature, values), GPUTarget("cuda", capability, 32), options)
    found[name] = {"shared": compiled.metadata.shared, "tensor cores": "mma" in compiled.asm["ptx"]}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "products", "last", "border", "kind"),
    [
        (80, True, False, "zero", "float16"),
        (90, True, True, "circular", "float16"),
        (90, False, False, "mask", "float32"),
    ],
)
def test_kernels_compile(capability, products, last, border, kind, tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed: its kernels are not compiled")
    words = json.dumps([capability, products, last, border, kind])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _COMPILE, words],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert all(one["tensor cores"] == products for one in found.values())
    assert all(one["shared"] < 99 * 1024 for one in found.values())
