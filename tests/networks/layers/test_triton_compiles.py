# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Triton takes the kernels and their arguments for GPUs that are not here: its interpreter forgives what it refuses."""

import json
import os
import subprocess
import sys

import pytest

_COMPILE = """
import json
import sys
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from monai_effsam.networks.layers.local_attention import AttentionWindow
from monai_effsam.networks.layers.local_attention.triton_form import attend_in_triton

capability, kind, channels, order, border = json.loads(sys.argv[1])
driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    get_current_target=lambda: GPUTarget("cuda", capability, 32),
))
launch, found = JITFunction.run, {}

def compile_only(self, *args, grid, warmup, **options):
    compiled = launch(self, *args, grid=grid, warmup=True, **options)
    found[self.fn.__name__] = [compiled.metadata.shared, "mma" in compiled.asm["ptx"]]

JITFunction.run = compile_only
maps = torch.zeros(2, 6 * channels, 9, 16, dtype=getattr(torch, kind))
maps = maps.contiguous(memory_format=getattr(torch, order)).chunk(3, 1)
leaves = [x.detach().requires_grad_() for x in maps]
window = AttentionWindow((3, 5), (1, 2), border)
torch.autograd.grad(attend_in_triton(*leaves, 2, window, 0.25).sum(), leaves)
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "kind", "channels", "order", "border", "products"),
    [
        (80, "float16", 16, "contiguous_format", "zero", True),
        (90, "float16", 20, "channels_last", "circular", True),
        (90, "float32", 7, "contiguous_format", "mask", False),
    ],
)
def test_kernels_compile(capability, kind, channels, order, border, products, tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed: its kernels are not compiled")
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            _COMPILE,
            json.dumps([capability, kind, channels, order, border]),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found) == {"attend", "to_queries", "to_keys_and_values"}
    assert all(tensor_cores == products for _, tensor_cores in found.values())
    assert all(
        shared < 99 * 1024 for shared, _ in found.values()
    )  # of the smallest multiprocessor that is served
