# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What all tests share: the data folder, skips that are counted aloud, repeatable properties."""

from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
NO_DATA = "the data folder ../shared is missing"

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
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of a small random `EspMedSam` that finds every target present; no weight of it is zero."""
    import torch

    from monai_effsam.checkpoints import save_model
    from monai_effsam.networks.nets import EspMedSam
    from monai_effsam.specs import ImageSpec

    torch.manual_seed(0)
    options = {"encoder": {"name": "timm", "model": "mobilenetv2_035", "embed_channels": 32}}
    network = EspMedSam(**options)
    for parameter in network.parameters():
        if not parameter.any():  # fresh experts would not be missed
            torch.nn.init.normal_(parameter, std=0.05)
    network.presence_shift.fill_(9.0)
    specs = {name: ImageSpec(size=64) for name in network.modalities}
    return save_model(tmp_path_factory.mktemp("model") / "model.pt", network, specs, options)


@pytest.fixture(scope="session")
def tiny_exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tiny_model` exports to, for both runtimes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from monai_effsam.checkpoints import load_model
    from monai_effsam.inference.export import export_model

    return export_model(load_model(tiny_model), tmp_path_factory.mktemp("export") / "tiny")


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
    """Say aloud how much was not tested for want of data: a green run should not hide it."""
    count = without_data(terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{count} tests on real images were skipped, because {NO_DATA}.", red=True, bold=True
        )
