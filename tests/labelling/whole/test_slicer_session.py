# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""3D Slicer's own code against the whole app: from the list of models to the answer of the model that was learnt."""

import time

import numpy as np
import pytest

from tests.labelling.discs import write_disc
from tests.labelling.server.plugin import plugin_logic
from tests.labelling.whole.conftest import write_scan

pytest.importorskip("monailabel")
sitk = pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client leaves its connections open


def mask_of(path):
    """(x, y, z) of a mask file, a label map that Slicer takes."""
    found = sitk.ReadImage(path)
    assert found.GetPixelID() == sitk.sitkUInt8
    found = sitk.JoinSeries([found]) if found.GetDimension() == 2 else found  # as Slicer does
    return sitk.GetArrayFromImage(found).transpose(2, 1, 0)


def test_pictures_with_the_shipped_models(shipped, pictures, tmp_path, monkeypatch):
    logic = plugin_logic(shipped.address, tmp_path, monkeypatch)
    info = logic.info()
    panels = {name: (model["type"], model["dimension"]) for name, model in info["models"].items()}
    assert panels == {
        "automatic": ("segmentation", 3),
        "class_prompt": ("segmentation", 3),
        "prompted_2d": ("deepgrow", 2),
        "prompted_3d": ("deepgrow", 3),
    }
    assert info["labels"] == ["breast_lesion", "fetal_head"]
    samples = {logic.next_sample("combined", {})["id"] for _ in range(3)}
    assert samples <= {path.stem for path in pictures}
    assert shipped.app.service.prepared(60)

    head = str(next(path.stem for path in pictures if path.stem.endswith("HC")))
    path, told = logic.infer("automatic", head, {})
    assert told["label_names"] == {"fetal_head": 1}
    whole = mask_of(path)[:, :, 0] > 0
    assert 0.05 < whole.mean() < 0.7
    path, told = logic.infer("class_prompt", head, {"target": "breast_lesion"})
    assert not mask_of(path).any() or told["label_names"] == {"breast_lesion": 1}

    columns, rows = (np.flatnonzero(whole.any(axis)) for axis in (1, 0))
    box = [
        int(columns[-1]),
        int(columns[0]),
        int(rows[-1]),
        int(rows[0]),
        0,
        0,
    ]  # Slicer's pairs run backwards
    path, _ = logic.infer("prompted_2d", head, {"roi": box, "slice": 0, "label": "fetal_head"})
    boxed = mask_of(path)[:, :, 0] > 0
    assert 2 * (boxed & whole).sum() / (boxed.sum() + whole.sum()) > 0.85
    middle = [int(np.argwhere(whole).mean(0)[n]) for n in (0, 1)]
    path, _ = logic.infer(
        "prompted_2d", head, {"foreground": [[*middle, 0]], "slice": 0, "label": "fetal_head"}
    )
    assert mask_of(path)[*middle, 0] == 1


def test_a_scan_is_followed_from_one_slice(serve, one_thread, tmp_path, monkeypatch):
    (tmp_path / "studies").mkdir()
    truth = write_scan(tmp_path / "studies" / "scan.nii.gz")
    logic = plugin_logic(
        serve(tmp_path / "studies", tmp_path / "state", modality="ct").address, tmp_path, monkeypatch
    )
    i, j, k = (int(v) for v in np.argwhere(truth).mean(0))
    first, last = np.argwhere(truth).min(0), np.argwhere(truth).max(0)
    box = [int(last[0]), int(first[0]), int(last[1]), int(first[1]), k, k]
    path, told = logic.infer("prompted_3d", "scan", {"roi": box, "label": "tumour"})
    found = mask_of(path).astype(bool)
    assert told["label_names"] == {"tumour": 1}
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    assert np.abs(np.argwhere(found).mean(0) - np.argwhere(truth).mean(0)).max() < 1
    path, _ = logic.infer("prompted_3d", "scan", {"foreground": [[i, j, k]], "label": "tumour"})
    assert mask_of(path)[i, j, k] == 1
    path, _ = logic.infer("prompted_2d", "scan", {"foreground": [[i, j, 0]], "slice": 0, "label": "tumour"})
    assert not mask_of(path)[:, :, 1:].any()  # slice 0 is a slice, and the only one


@pytest.fixture
def discs(tmp_path):
    """Eight pictures of a disc, and where it is, by id."""
    (tmp_path / "studies").mkdir()
    return {f"x{n}": write_disc(tmp_path / "studies" / f"x{n}.png", n) for n in range(8)}


def test_what_is_submitted_is_learnt(serve, discs, tiny_model, tiny_promptable, tmp_path, monkeypatch):
    conf = {
        "modality": "endoscopy", "model": str(tiny_model), "prompted_model": str(tiny_promptable),
        "train_every": "8",
    }  # fmt: skip
    from monai_effsam.labelling.learning.finetune import Learning

    short = Learning(epochs=2, epoch_length=8, rate=3e-3)
    monkeypatch.setattr("monai_effsam.labelling.learning.trainer._learning", lambda request: short)
    running = serve(tmp_path / "studies", tmp_path / "state", **conf)
    logic = plugin_logic(running.address, tmp_path, monkeypatch)
    before = mask_of(logic.infer("automatic", "x0", {})[0])
    for number in range(8):
        sample = logic.next_sample("combined", {})
        file = tmp_path / "label.nii.gz"
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(discs[sample["id"]])]), str(file))
        names = {"label_info": [{"name": "polyp", "idx": 1}]}
        reply = logic.save_label(sample["id"], str(file), names)
        assert reply.get("training") == ("effsam" if number == 7 else None)
    assert logic.next_sample("combined", {}) == {}
    end = time.monotonic() + 120
    while logic.train_status(True) and time.monotonic() < end:
        time.sleep(0.1)
    done = logic.train_status(False)
    assert done["status"] == "DONE", done
    stats = logic.info()["train_stats"]["effsam"]
    assert stats["epoch"] == stats["total_epochs"]
    assert (stats["state"], stats["published"]) == ("published", "v0001"), stats
    assert running.app.service.model.path.parent.name == "v0001"
    after = mask_of(logic.infer("automatic", "x0", {})[0])
    assert (after != before).any()

    running.stop()
    again = serve(tmp_path / "studies", tmp_path / "state", **conf)
    assert again.app.service.model.path == running.app.service.model.path
    logic = plugin_logic(again.address, tmp_path, monkeypatch)
    assert np.array_equal(mask_of(logic.infer("automatic", "x0", {})[0]), after)
    assert logic.info()["datastore"]["completed"] == 8
