# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What `effsam profile --every-runtime` does: one model in each runtime, each in processes of its own, as one table."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_effsam import __version__
from monai_effsam.errors import DataError

__all__ = ["AGAINST", "profile_runtimes", "runtimes_page"]

_PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "opencv-python-headless")
_MEASURED = """
import json, sys, time
from monai_effsam.cli.main import main
status = main(sys.argv[1:])
from monai_effsam.inference.runtimes.machine import peak_memory_mb
print(json.dumps({"cpu_seconds": time.process_time(), "peak_mb": peak_memory_mb() or 0}))
sys.exit(status)
"""
AGAINST = (
    ("encode_ms", "our encoder [ms]", "{:.1f}"),
    ("decode_ms", "our decoder [ms]", "{:.1f}"),
    ("reference_encode_ms", "LiteMedSAM's encoder [ms]", "{:.0f}"),
    ("reference_decode_ms", "LiteMedSAM's decoder [ms]", "{:.0f}"),
    ("encoder_ratio", "encoder: so many times faster", "{:.1f}"),
    ("whole_ratio", "encode and decode: so many times faster", "{:.1f}"),
    ("ratio", "encode and decode against its encoder alone", "{:.1f}"),
)
"""Figure of `compare_with_lite_medsam`, its row and form."""
_COLUMNS = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def profile_runtimes(
    model: Path,
    inputs: Sequence[Path],
    options: Sequence[str],
    *,
    family: str | None = None,
    threads: int | None,
    rounds: int,
) -> dict[str, Any]:
    """Profiles of a model in torch, ONNX Runtime and OpenVINO, with LiteMedSAM beside each.

    Args:
        model: not exported yet.
        inputs: pictures, volumes, folders.
        options: `--modality`, `--box` and `--batches` with their values, as far as they are given.
        family: of weights of others, where their keys do not tell it.
        threads: CPU threads of the network; None for each runtime's own choice.
        rounds: that count.

    Returns:
        Runtime -> what `effsam profile --json` tells, and `cold`: CPU seconds and MB of a process that segments the
        first input.

    Raises:
        DataError: a process failed.
    """
    common = ["--threads", str(threads)] if threads else []
    own_family = ["--family", family] if family else []
    first = _first_picture(model, inputs, prompted="--box" in options)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(["export", str(model), "-o", str(folder / "exported"), "--quiet", *own_family])
        for runtime in _COLUMNS:
            path = model if runtime == "torch" else folder / "exported"
            own = ["--model", str(path), "--runtime", runtime, *common]
            own += own_family if runtime == "torch" else []
            words = [
                "profile",
                *map(str, inputs),
                *own,
                *options,
                "--rounds",
                str(rounds),
                "--reference",
                "--json",
            ]
            found[runtime] = json.loads(_run(words))
            words = ["segment", *first, *own, *_of_picture(options), "-o", str(folder / runtime), "--quiet"]
            found[runtime]["cold"] = json.loads(_run(words, "-c", _MEASURED))
    return found


def _of_picture(options: Sequence[str]) -> list[str]:
    """Those of some options, each followed by its value, that `effsam segment` takes too."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for name, value in pairs if name != "--batches" for word in (name, value)]


def _first_picture(model: Path, inputs: Sequence[Path], *, prompted: bool) -> list[str]:
    """What `effsam segment` gets: the first input, for a promptable model with the box that a profile prompts."""
    from monai_effsam.data.io import find_inputs, read_image
    from monai_effsam.inference.model_path import told_of
    from monai_effsam.inference.prompted import middle_box

    if prompted or told_of(model).promptable is False:
        return [str(inputs[0])]
    source = find_inputs(inputs)[0]
    box = middle_box(read_image(source).size).box or ()
    return [str(source.path), "--box", ",".join(map(str, box))]


def runtimes_page(found: Mapping[str, Any], command: str, title: str = "the shipped model") -> str:
    """The profiles as a page of Markdown; every figure comes from them.

    Args:
        found: of `profile_runtimes`.
        command: that made them.
        title: what the model is called.
    """
    from monai_effsam.inference.runtimes.machine import usable_cores
    from monai_effsam.reports import markdown_table

    first = found["torch"]
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    origin = (
        f"Made by `{command}`; not edited. {first['pictures']} pictures, {first['rounds']} rounds, {first['threads']} "
        f"threads on {usable_cores()} cores ({platform.system()} {platform.machine()}). monai_effsam {__version__}, "
        f"python {platform.python_version()}, {versions}."
    )
    rows = [
        (f"{stage} [ms]", [f"{one['stages_ms'][stage]:.1f}" for one in found.values()])
        for stage in first["stages_ms"]
    ]
    rows += [
        (f"encoder, {size} at once [pictures/s]", [f"{one['images_s'][size]:.1f}" for one in found.values()])
        for size in first.get("images_s", {})
    ]
    rows += [
        (name, [form.format(one["reference"][key]) for one in found.values()]) for key, name, form in AGAINST
    ]
    rows += [
        (
            "cold process, one picture [s of CPU]",
            [f"{one['cold']['cpu_seconds']:.2f}" for one in found.values()],
        ),
        ("its peak memory [MB]", [f"{one['cold']['peak_mb']:.0f}" for one in found.values()]),
    ]
    table = markdown_table(("", *_COLUMNS.values()), ([name, *cells] for name, cells in rows))
    note = (
        "Stages are timed one after the other, medians over all pictures and rounds; a folder run overlaps reading, "
        "network and writing. The comparison takes turns within one process, same runtime and threads, one image in "
        "memory; LiteMedSAM has random weights, which change nothing about its time. Times drift with the "
        "machine, ratios hardly."
    )
    return f"# Speed of {title}\n\n{origin}\n\n{table}\n\n{note}\n"


def _run(words: Sequence[str], *how: str) -> str:
    """Output of one command in a process of its own, started as a module or as `how` says."""
    start = how or ("-m", "monai_effsam.cli")
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"effsam {words[0]}: failed ({done.stderr.strip()}). Run it alone to see more.")
    return done.stdout
