# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The doors to timm and segment-anything, beside a torchvision that loads and one that does not."""

import subprocess
import sys

import pytest

from monai_effsam.errors import MissingExtraError
from monai_effsam.networks import foreign

BROKEN = """
import sys
raise_once = not hasattr(sys, "seen")
sys.seen = True
if raise_once:
    raise RuntimeError("{message}")
"""


def run(code: str, *, first_on_path: object = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, since an import can be tried only once in each."""
    path = f"import sys; sys.path.insert(0, {str(first_on_path)!r})\n" if first_on_path else ""
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=False)


@pytest.fixture
def fake_torchvision(tmp_path):
    """A folder whose `torchvision` fails at first import with a chosen message, beside an empty `timm`."""

    def write(message: str):
        (tmp_path / "torchvision.py").write_text(BROKEN.format(message=message) if message else "")
        (tmp_path / "timm.py").write_text("")
        return tmp_path

    return write


def test_timm_builds_a_network_on_this_machine():
    result = run(
        "from monai_effsam.networks.foreign import import_timm\n"
        "print(import_timm().create_model('tf_efficientnet_lite0', features_only=True).feature_info.channels())"
    )
    assert result.stdout.strip() == "[16, 24, 40, 112, 320]", result.stderr


def test_segment_anything_offers_its_decoder_on_this_machine():
    result = run(
        "from monai_effsam.networks.foreign import import_segment_anything\n"
        "import_segment_anything(); from segment_anything.modeling import MaskDecoder; print(MaskDecoder.__name__)"
    )
    assert result.stdout.strip() == "MaskDecoder", result.stderr


def test_the_missing_operator_is_declared_when_torchvision_asks_for_it(fake_torchvision):
    folder = fake_torchvision("operator torchvision::nms does not exist")
    result = run(
        "from monai_effsam.networks.foreign import import_timm\n"
        "import_timm(); import torch; print(torch.ops.torchvision.nms.default._schema)",
        first_on_path=folder,
    )
    expected = "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert result.stdout.strip() == expected, result.stderr


def test_nothing_is_declared_beside_a_torchvision_that_loads(fake_torchvision):
    result = run(
        "from monai_effsam.networks.foreign import import_timm\n"
        "import_timm(); import torch; print(hasattr(torch.ops.torchvision, 'nms'))",
        first_on_path=fake_torchvision(""),
    )
    assert result.stdout.strip() == "False", result.stderr


def test_another_failure_of_torchvision_is_not_hidden(fake_torchvision):
    folder = fake_torchvision("this torchvision is broken otherwise")
    result = run("from monai_effsam.networks.foreign import import_timm\nimport_timm()", first_on_path=folder)
    assert "this torchvision is broken otherwise" in result.stderr


def test_an_absent_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(foreign.importlib.util, "find_spec", lambda name: None if "segment" in name else name)
    with pytest.raises(MissingExtraError, match="pip install segment-anything"):
        foreign.import_segment_anything()


def test_segment_anything_is_whole_after_monai_tried_to_import_it():
    result = run(
        "import monai.networks.nets\n"
        "from monai_effsam.networks.foreign import import_segment_anything\n"
        "print(import_segment_anything().modeling.MaskDecoder.__name__)"
    )
    assert result.stdout.strip() == "MaskDecoder", result.stderr
