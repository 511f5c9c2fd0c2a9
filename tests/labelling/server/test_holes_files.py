# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Known holes of the stock server, replayed and refused, one function a hole: names, paths and files of a request."""

import io
import json
import os
import pickle
import tarfile
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("monailabel")

import torch

from tests.labelling.server.refusals import image_file, one_line, tree

BAD_NAMES = ("../x", "/srv/x", "..", ".hidden", "a/../../x", "a\\..\\x", "", "a\0b", "x" * 300)


@pytest.mark.parametrize("path", ["/datastore/", "/datastore/image"])
def test_hole_01_upload_writes_anywhere(client, tmp_path, path):
    before = tree(tmp_path)
    for name in BAD_NAMES[:-3]:
        reply = client.put(path, params={"image": name}, files=image_file())
        assert reply.status_code == 400, name
        one_line(reply)
    for filename in ("main.py", "x.nii.gz.py", "x", "../../main.py"):
        assert client.put(path, params={"image": "new"}, files=image_file(filename)).status_code == 400
    assert client.put(path, files=image_file("../../.nii.gz")).status_code == 400
    assert tree(tmp_path) == before
    assert client.put(path, params={"image": "new_1.2"}, files=image_file()).json() == {"image": "new_1.2"}
    assert (tmp_path / "studies" / "new_1.2.nii.gz").read_bytes() == b"content"


def test_hole_02_tag_makes_folders_anywhere(client, tmp_path):
    before = tree(tmp_path)
    for tag in ("../../x", "/srv/x", "other", "final/../../x"):
        reply = client.put(
            "/datastore/label", params={"image": "a", "tag": tag}, files={"label": ("a.nrrd", b"l")}
        )
        assert reply.status_code == 400
        one_line(reply)
        asked = {"save_label": True, "label_tag": tag}
        assert client.post("/infer/automatic?image=a", data={"params": json.dumps(asked)}).status_code == 400
        assert client.get("/datastore/label", params={"label": "a", "tag": tag}).status_code == 400
        assert client.delete("/datastore/label", params={"id": "a", "tag": tag}).status_code == 400
    assert tree(tmp_path) == before


@pytest.mark.parametrize("known", [False, True])
def test_hole_03_remove_or_read_by_path(client, tmp_path, known):
    victim = tmp_path / "victim.nii.gz"
    victim.write_bytes(b"secret")
    if known:  # a state file that was tampered with
        state = tmp_path / "studies" / "datastore_v2.json"
        content = json.loads(state.read_text())
        content["objects"]["../victim"] = content["objects"]["a"]
        state.write_text(json.dumps(content))
        getattr(client.app.state.effsam.store, "refresh", lambda: None)()
    for name in ("../victim", str(victim), "..%2fvictim"):
        assert client.get("/datastore/image", params={"image": name}).status_code == 404
        assert client.get("/datastore/image/info", params={"image": name}).status_code == 404
        assert client.delete("/datastore/image", params={"id": name}).status_code == 404
        assert client.delete("/datastore/label", params={"id": name, "tag": "final"}).status_code == 404
    assert victim.read_bytes() == b"secret"


def test_hole_04_session_id_is_a_path(client, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "meta.info").write_text(json.dumps({"name": "x", "path": str(victim), "image": "/nothing"}))
    (victim / "session.json").write_text((victim / "meta.info").read_text())
    for name in (
        "../../victim",
        str(victim),
        "../..",
        str(uuid.uuid4()),
        str(uuid.uuid4()).upper(),
        "{" + "0" * 32 + "}",
    ):
        reply = client.post("/infer/automatic", params={"session_id": name})
        assert reply.status_code == 404
        one_line(reply)
        assert client.get(f"/session/{quote(name, safe='')}").status_code == 404
        assert client.delete(f"/session/{quote(name, safe='')}").status_code == 404
    assert len(list(victim.iterdir())) == 2


def test_hole_05_archive_writes_outside(client, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("../../../evil.txt")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    before = tree(tmp_path)
    for query in ("?uncompress=true", ""):
        reply = client.put(f"/session/{query}", files={"files": ("x.tar", packed.getvalue())})
        assert reply.status_code == 400
        one_line(reply)
    assert tree(tmp_path) == before
    assert list((tmp_path / "state" / "sessions").iterdir()) == []


def test_hole_06_params_choose_what_is_read(client, tmp_path):
    secret = tmp_path / "studies" / "a.nii.gz"
    for name in (str(secret), str(tmp_path), "/etc/passwd", "../studies/a.nii.gz"):
        reply = client.post("/infer/automatic", params={"image": name})
        assert (reply.status_code, reply.json()) == (404, {"detail": "image: there is none of this id."})
    task = client.app.state.effsam.app.tasks["automatic"]
    asked = {
        "image": "/etc/passwd", "model": "prompted_2d", "session": {"image": "/etc/passwd"}, "device": "/dev/x",
        "label_path": "/etc/passwd", "path": "/etc/passwd", "description": "x", "depth": "deep",
    }  # fmt: skip
    assert client.post("/infer/automatic?image=b", data={"params": json.dumps(asked)}).status_code == 200
    reached = task.asked[-1]
    assert Path(reached.pop("image")) == (tmp_path / "studies" / "b.nii.gz").resolve()
    assert reached == {"model": "automatic", "depth": "deep"}
    for wrong in ({"label": "/etc/passwd"}, {"depth": "other"}, {"foreground": "x"}, {"seconds": "long"}):
        assert client.post("/infer/automatic?image=b", data={"params": json.dumps(wrong)}).status_code == 400
    for text in ("{", "[]", '"x"', '{"slice": NaN}', "[" * 100_000):
        assert client.post("/infer/automatic?image=b", data={"params": text}).status_code == 400


@pytest.mark.parametrize("path", ["../../dir", "studies/../../system", "studies/1.2/../../x", "1.2"])
def test_hole_07_dicom_id_is_a_path(client, path):
    assert client.post("/infer/automatic", params={"image": path}).status_code == 404
    assert client.get("/datastore/image", params={"image": path}).status_code == 404


def test_hole_08_model_file_by_path(client):
    asked = {"model_filename": "../../x", "bundle_path": "/tmp", "path": "/tmp"}
    assert client.post("/infer/automatic?image=a", data={"params": json.dumps(asked)}).status_code == 200
    assert not asked.keys() & client.app.state.effsam.app.tasks["automatic"].asked[-1].keys()
    for name in ("../../x", "..%2f..%2fx", "/etc/passwd"):
        assert client.get(f"/model/{quote(name, safe='')}").status_code == 404
        assert client.post(f"/infer/{quote(name, safe='')}?image=a").status_code == 404


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hole_09_uploaded_model_is_code(client, make_client, tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x):
            return x * 2

    packed = io.BytesIO()
    torch.save({"model": Evil(tmp_path / "evil")}, packed)
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.trace(Two(), torch.zeros(1)), scripted)
    for name, content in (
        ("model.pt", pickle.dumps(Evil(tmp_path / "evil"))),
        ("model.pt", packed.getvalue()),
        ("model.pt", scripted.getvalue()),
        ("model.pt", b"nothing"),
        ("model.safetensors", pickle.dumps(Evil(tmp_path / "evil"))),
    ):
        reply = client.put("/model/automatic", files=image_file(name, content))
        assert reply.status_code == 422, name
        one_line(reply)
    assert client.put("/model/automatic", files=image_file("model.ts", b"x")).status_code == 400
    assert client.put("/model/../automatic", files=image_file("model.pt", b"x")).status_code in {404, 405}
    assert not (tmp_path / "evil").exists()
    assert list((tmp_path / "state" / "uploads").iterdir()) == []


def test_hole_10_training_parameters(client):
    trainer = client.app.state.effsam.app.trainers["decoder"]
    asked = {
        "bundle_path": "/tmp", "name": "../../x", "train_ds": "/etc/passwd", "val_ds": "/etc/passwd",
        "tracking_uri": "http://evil.example", "max_epochs": 1, "part": "controller", "client_id": "me",
    }  # fmt: skip
    assert client.post("/train/decoder", json=asked).status_code == 200
    while client.get("/train/?check_if_running=true").status_code == 200:
        time.sleep(0.01)
    assert trainer.asked == [{"model": "decoder", "max_epochs": 1, "part": "controller"}]
    for wrong in ({"part": "../../x"}, {"max_epochs": "many"}, {"max_epochs": 1.5}, {"max_epochs": True}):
        assert client.post("/train/decoder", json=wrong).status_code == 400


def test_hole_11_reload(client):
    before = client.app.state.effsam.app
    assert client.post("/reload").status_code == 404
    assert client.app.state.effsam.app is before
