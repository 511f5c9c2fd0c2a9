# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A promptable model in 8 bits: as good as it says, from training pictures alone, with nothing left at home."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import LoadedModel
from monai_effsam.cli.main import main
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference.export import Int8Settings, calibration_pictures, export_model
from monai_effsam.inference.export.int8 import mask_agreement
from monai_effsam.inference.runtimes.exported import read_exported
from monai_effsam.inference.runtimes.prompted import PromptedGraphs
from monai_effsam.networks.nets import PromptableSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS

pytest.importorskip("openvino")

SIDE = 64


def block(number):
    """A noisy picture with a bright block, labelled."""
    random = np.random.RandomState(number)
    rgb = random.randint(0, 80, (50, 60, 3)).astype(np.uint8)
    label = np.zeros((50, 60), np.uint8)
    y, x = random.randint(5, 20, 2)
    label[y : y + 20, x : x + 25] = 1
    rgb[label > 0] += 120
    return LabelledSlice(rgb, label, "endoscopy", "s", str(number), (True,))


@pytest.fixture(scope="module")
def pictures():
    return calibration_pictures(
        [block(number) for number in range(8)], {"": ImageSpec(SIDE, resize="longest")}
    )


@pytest.fixture(scope="module")
def model(scatter, tmp_path_factory):
    torch.manual_seed(0)
    network = scatter(PromptableSam({"name": "timm", "model": "mobilenetv2_035", "skips": ()}, mlp_dim=64))
    specs = {"": ImageSpec(SIDE, resize="longest")}
    return LoadedModel(network, specs, TARGETS, {"name": "sam"}, tmp_path_factory.mktemp("m") / "sam.pth")


def test_pictures_get_the_box_of_their_label_or_of_their_middle():
    one, two = block(0), block(1)
    empty = LabelledSlice(two.image, np.zeros_like(two.label), "endoscopy", "s", "1", (True,))
    boxed, plain = calibration_pictures([one, empty], {"": ImageSpec(240, resize="longest")})
    rows, columns = np.nonzero(one.label)
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxed.points.reshape(4), 4 * np.array(corners))
    np.testing.assert_allclose(plain.points.reshape(4), [60, 48, 180, 148])
    assert boxed.image.shape == (1, 3, 240, 240)
    assert boxed.labels.tolist() == [[[2, 3]]]
    assert plain.drawn is None
    found = np.argwhere(boxed.drawn)
    assert [*found.min(0)[::-1], *(found.max(0)[::-1] + 1)] == [4 * corner for corner in corners]


def test_masks_agree_as_dice_says():
    half, whole = np.array([True, False]), np.array([True, True])
    assert mask_agreement(half, whole) == pytest.approx(2 / 3)
    assert mask_agreement(half & False, whole & False) == 1
    assert mask_agreement(half & False, whole) == 0


def test_too_few_pictures_other_runtimes_and_other_models_are_refused(model, pictures, tmp_path):
    with pytest.raises(DataError, match="3 pictures to calibrate on, expected at least 4"):
        Int8Settings(pictures[:3])
    with pytest.raises(UsageError, match="expected openvino alone"):
        export_model(model, tmp_path / "x", ("onnxruntime",), int8=Int8Settings(pictures))
    alone = SimpleNamespace(promptable=False, path="model.pt")
    with pytest.raises(UsageError, match="is self-prompting"):
        export_model(alone, tmp_path / "x", ("openvino",), int8=Int8Settings(pictures))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "one is given alone"),
        (["--calibrate", "."], "one is given alone"),
        (["--int8-decoder"], "is given without --int8"),
        (["--int8", "--calibrate", "nowhere"], "nowhere: no such file or folder"),
        (["--int8", "--calibrate", ".", "--max-drop", "2"], "--max-drop: is 2.0"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(words, message, tmp_path, capsys):
    assert main(["export", "kd_sam", *words, "-o", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err


def int8_layers(file):
    """How many constants of a graph are stored in 8 bits."""
    return file.read_text().count('element_type="i8"')


def test_the_encoder_computes_in_8_bits_and_the_manifest_says_how_well(model, pictures, tmp_path):
    pytest.importorskip("nncf", reason="nncf is missing: install the extra nas")
    full = export_model(model, tmp_path / "fp32", ("openvino",))
    small = export_model(
        model, tmp_path / "int8", ("openvino",), int8=Int8Settings(pictures, max_drop=0.5), card={"note": "n"}
    )
    card = json.loads((small / "manifest.json").read_text())
    assert card["note"] == "n"
    told = card["int8"]
    assert (told["roles"], told["calibrated"], told["judged"]) == (["encoder"], 6, 2)
    assert told["lost"] <= told["max_drop"]
    assert 0.5 < told["dice"] <= 1
    assert int8_layers(small / "encoder.xml") > 20
    assert int8_layers(small / "decoder.xml") == int8_layers(full / "encoder.xml") == 0
    assert (small / "encoder.bin").stat().st_size < 0.5 * (full / "encoder.bin").stat().st_size
    one, two = (PromptedGraphs(read_exported(folder), threads=1) for folder in (full, small))
    found = [runtime.encode(pictures[1].image) for runtime in (one, two)]
    assert 0 < np.abs(found[0] - found[1]).max() < np.abs(found[0]).max()
    assert sorted(p.name for p in small.iterdir()) == [
        "decoder.bin",
        "decoder.xml",
        "encoder.bin",
        "encoder.xml",
        "manifest.json",
    ]


@pytest.mark.slow
def test_the_command_uses_training_pictures_alone_and_segments_with_the_result(
    tiny_promptable, tmp_path, capsys
):
    pytest.importorskip("nncf", reason="nncf is missing: install the extra nas")
    for number in range(6):
        for kind in ("images", "masks"):
            (tmp_path / "s" / kind).mkdir(parents=True, exist_ok=True)
        one = block(number)
        cv2.imwrite(str(tmp_path / "s" / "images" / f"{number}.png"), one.image)
        cv2.imwrite(str(tmp_path / "s" / "masks" / f"{number}.png"), one.label)
    rows = [f"images/{n}.png,masks/{n}.png,{'train' if n < 5 else 'val'},{n}" for n in range(6)]
    (tmp_path / "s" / "splits.csv").write_text("\n".join(["image,mask,split,case", *rows]) + "\n")
    (tmp_path / "targets.csv").write_text("set,modality,target,label_value\ns,endoscopy,polyp,1\n")
    out = tmp_path / "int8"
    words = ["export", str(tiny_promptable), "-o", str(out), "--int8", "--calibrate", str(tmp_path)]
    assert main([*words, "--max-drop", "0.9"]) == 0
    printed = capsys.readouterr()
    assert "int8 encoder: masks have a Dice of" in printed.out
    assert ", on 2 training pictures; calibrated on 3 others" in printed.out  # five, not the sixth
    image = tmp_path / "s" / "images" / "0.png"
    words = ["segment", str(image), "--model", str(out), "--box", "10,10,40,40", "-o", str(tmp_path / "o")]
    assert main(words) == 0
    assert (tmp_path / "o" / "0_mask.png").is_file()
