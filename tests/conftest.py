# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What all tests share: the data folder, skips that are counted aloud, repeatable properties."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
STATUS = pytest.StashKey[int]()
NO_DATA = "the data folder ../shared is missing"

if not Path("/proc/driver/nvidia").exists():  # read once, when the first test imports Triton
    os.environ.setdefault("TRITON_INTERPRET", "1")

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the repository; the test is skipped, and counted, without it."""
    if not SHARED.is_dir():
        pytest.skip(NO_DATA)
    return SHARED


@pytest.fixture(scope="session")
def scatter() -> Callable[..., Any]:
    """A function: network -> the same in eval mode, every weight and statistic that starts at a constant at random."""
    import torch

    def fill(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 1.5, generator=generator)
                elif value.is_floating_point() and value.numel() and value.std(unbiased=False) == 0:
                    value.add_(torch.randn(value.shape, generator=generator), alpha=0.1)
        return network.eval()

    return fill


@pytest.fixture(scope="session")
def make_sam(scatter: Callable[..., Any]) -> Callable[..., Any]:
    """A function: segment-anything's own `Sam`, small unless asked otherwise, with repeatable random weights."""
    import torch

    from monai_effsam.networks.foreign import import_segment_anything

    def make(
        *,
        size: int = 256,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        global_blocks: Sequence[int] = (1,),
    ) -> Any:
        modeling = import_segment_anything().modeling
        torch.manual_seed(0)
        encoder = modeling.ImageEncoderViT(
            img_size=size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=tuple(global_blocks),
        )
        prompts = modeling.PromptEncoder(256, (size // 16, size // 16), (size, size), 16)
        transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
        decoder = modeling.MaskDecoder(transformer_dim=256, transformer=transformer)
        return scatter(modeling.Sam(encoder, prompts, decoder))

    return make


@pytest.fixture(scope="session")
def tiny_model(scatter: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of a small random `EspMedSam` that finds every target present; no part of it is neutral."""
    import torch

    from monai_effsam.checkpoints import save_model
    from monai_effsam.networks.nets import EspMedSam
    from monai_effsam.specs import ImageSpec

    torch.manual_seed(0)
    options = {"encoder": {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32}}
    network = scatter(EspMedSam(**options))
    network.presence_shift.fill_(9.0)
    specs = {name: ImageSpec(size=64) for name in network.modalities}
    return save_model(tmp_path_factory.mktemp("model") / "model.pt", network, specs, options)


@pytest.fixture(scope="session")
def tiny_promptable(scatter: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of a small random `PromptableSam` with a spec of its own for CT and another for all else."""
    import torch

    from monai_effsam.checkpoints import save_model
    from monai_effsam.networks.nets import PromptableSam
    from monai_effsam.specs import ImageSpec

    torch.manual_seed(0)
    encoder = {"name": "sam_vit", "size": 64, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}
    options = {"image_encoder": encoder, "prompt_size": None}
    specs = {"": ImageSpec(64, "longest", mask_rule="frame"), "ct": ImageSpec(64, intensity="tissue")}
    network = scatter(PromptableSam(**options))
    return save_model(tmp_path_factory.mktemp("promptable") / "model.pt", network, specs, options)


@pytest.fixture(scope="session")
def tiny_exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tiny_model` exports to, for both runtimes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from monai_effsam.checkpoints import load_model
    from monai_effsam.inference.export import export_model

    return export_model(load_model(tiny_model), tmp_path_factory.mktemp("export") / "tiny")


ROUTER_CARD = {
    "specs": {"": {"size": 32, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "stride": 32}},
    "classes": ["endoscopy", "ultrasound", "dermoscopy", "xray", "fundus", "ct", "mr", "unknown"],
    "calibration": {"temperature": 1.0, "threshold": 0.5, "recall": 0.99, "pictures": 9},
    "recipe": {"left_out": ["scans"]},
    "parameters": 9,
}


@pytest.fixture
def bright_router() -> Any:
    """A router that can be checked by hand: dark is CT, bright X-ray, what lies between unknown."""
    import numpy as np

    from monai_effsam.inference.router import ModalityRouter

    def run(images: Any) -> Any:
        level = images.mean((1, 2, 3))
        logits = np.full((len(level), 8), -9.0, np.float32)
        logits[:, 5], logits[:, 3], logits[:, 7] = 20 * (0.3 - level), 20 * (level - 0.7), 0
        return logits

    return ModalityRouter(run, dict(ROUTER_CARD), "torch")


@pytest.fixture(scope="session")
def tiny_router(scatter: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random router."""
    import torch

    from monai_effsam.checkpoints.classifier_file import build_classifier, save_classifier
    from monai_effsam.specs import ImageSpec

    torch.manual_seed(0)
    options = {"size": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "head_channels": 8}}
    network = scatter(build_classifier(options, 8))
    spec = ImageSpec(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), stride=32)
    folder = tmp_path_factory.mktemp("router")
    more = {key: ROUTER_CARD[key] for key in ("calibration", "recipe", "parameters")}
    save_classifier(folder / "model.pt", network, spec, options, ROUTER_CARD["classes"], more)
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run."""
    if item.get_closest_marker("data") and not SHARED.is_dir():
        pytest.skip(NO_DATA)
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def without_data(reports: Sequence[pytest.TestReport]) -> int:
    """How many of these skipped tests wanted the data folder."""
    return sum(isinstance(report.longrepr, tuple) and NO_DATA in report.longrepr[2] for report in reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests measured, and aloud how much was not tested for want of data: a green run should not hide it."""
    measured = [report for report in terminalreporter.stats.get("passed", []) if report.user_properties]
    if measured:
        terminalreporter.section("measured")
        for report in measured:
            values = ", ".join(f"{name} {value:.3g}" for name, value in report.user_properties)
            terminalreporter.line(f"{report.nodeid.split('::')[-1]}: {values}")
    count = without_data(terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{count} tests on real images were skipped, because {NO_DATA}.", red=True, bold=True
        )


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave as soon as all is said, without tearing the interpreter down.

    One process here loads torch, ITK, ONNX Runtime and OpenVINO together, which no command does; what they hold was
    seen to crash while it was torn down, after the last test had passed.
    """
    status = config.stash.get(STATUS, None)
    if status is not None and {"openvino", "onnxruntime"} & sys.modules.keys():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how it ended."""
    session.config.stash[STATUS] = int(exitstatus)
