# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""3D Slicer's plug-in against our server: the plug-in's own files, loaded unchanged, with stand-ins for Slicer."""

import time

import pytest

from tests.labelling.server.plugin import plugin_logic

pytest.importorskip("monailabel")
sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def logic(live, tmp_path, monkeypatch):
    """The plug-in's logic, connected to a server on a port."""
    return plugin_logic(live, tmp_path, monkeypatch)


def is_on_grid_of(path, image):
    mask, volume = sitk.ReadImage(path), sitk.ReadImage(str(image))
    return all(
        getattr(mask, name)() == pytest.approx(getattr(volume, name)())
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client leaves its connections open
def test_a_session_of_annotating(logic, studies, tmp_path):
    info = logic.info()
    assert not info.get("config")  # else the plug-in calls the server outdated
    assert info["labels"] == ["organ"]
    sample = logic.next_sample("first", {})
    assert {"id", "name"} <= set(sample)
    assert "path" not in sample
    image = studies / sample["name"]

    path, told = logic.infer("automatic", sample["id"], {"depth": "deep"})
    assert path.endswith(".nrrd")
    assert told["label_names"] == {"organ": 1}
    assert is_on_grid_of(path, image)

    clicks = {
        "label": "organ",
        "foreground": [[3, 4, 0]],
        "background": [],
        "slice": 0,
        "roi": [9, 2, 8, 1, 0, 3],
    }
    path, _ = logic.infer("prompted_2d", sample["id"], clicks)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(path))
    assert mask[0, 4, 3] == mask.sum() == 1

    label = tmp_path / "label.nii.gz"
    sitk.WriteImage(sitk.ReadImage(path), str(label))
    reply = logic.save_label(sample["id"], str(label), {"label_info": [{"name": "organ", "idx": 1}]})
    assert reply == {"image": sample["id"], "label": sample["id"]}
    stored = logic.datastore()["objects"][sample["id"]]["labels"]["final"]["info"]
    assert stored["label_info"] == [{"name": "organ", "idx": 1}]
    assert stored["client_id"] == "ann"
    assert logic.info()["datastore"]["completed"] == 1

    assert logic.train_start("decoder", {"max_epochs": 100})["status"] in {"SUBMITTED", "RUNNING"}
    assert logic.train_status(True)
    assert logic.info()["train_stats"]["decoder"]["total_epochs"] == 5
    logic.train_stop()
    end = time.monotonic() + 5
    while logic.train_status(True) and time.monotonic() < end:
        time.sleep(0.02)
    assert logic.train_status(False)["status"] == "ERROR"  # stopped


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_volume_that_only_slicer_has(logic, studies, tmp_path):
    session = logic.create_session(str(studies / "b.nii.gz"))["session_id"]
    assert logic.get_session(session)["name"] == session
    path, _ = logic.infer("automatic", "anything", {}, session_id=session)
    assert is_on_grid_of(path, studies / "b.nii.gz")
    logic.remove_session(session)
    with pytest.raises(Exception, match="404"):
        logic.get_session(session)
    assert logic.upload_image(str(studies / "b.nii.gz"), "new") == {"image": "new"}
    assert logic.next_sample("first", {})["id"] in {"a", "b", "c", "new"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_user_reads_what_was_wrong(logic):
    with pytest.raises(Exception, match="model: there is none of this name"):
        logic.infer("other", "a", {})
