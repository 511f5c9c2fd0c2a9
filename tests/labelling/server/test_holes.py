# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Every hole that is known of the stock server, replayed against ours and refused; one function a hole."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("monailabel")

import torch

from monai_effsam.errors import UsageError
from monai_effsam.labelling.server import Limits, OidcSettings, Role, ServerSettings
from monai_effsam.labelling.server.auth import Gate
from monai_effsam.labelling.server.oidc import Provider
from monai_effsam.labelling.server.routes.proxy import check_dicom_path

BAD_NAMES = ("../x", "/srv/x", "..", ".hidden", "a/../../x", "a\\..\\x", "", "a\0b", "x" * 300)


def tree(folder: Path) -> set[str]:
    """Every path below a folder, but for what belongs to the server."""
    return {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if "state" not in p.relative_to(folder).parts[:1]
    }


def one_line(reply):
    """A refusal is JSON with one line and no path of this machine."""
    detail = reply.json()["detail"]
    assert set(reply.json()) == {"detail"}
    assert "\n" not in detail
    assert "/tmp" not in detail
    assert "Traceback" not in detail
    return detail


def image_file(name="x.nii.gz", content=b"content"):
    return {"file": (name, content)}


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


def test_hole_12_other_sites(client, make_client, make_app):
    evil = {"Origin": "http://evil.example"}
    for method, path in (
        ("GET", "/info/"),
        ("OPTIONS", "/info/"),
        ("DELETE", "/train/"),
        ("PUT", "/datastore/label"),
    ):
        reply = client.request(method, path, headers=evil)
        assert reply.status_code == 403
        assert not any(name.startswith("access-control") for name in reply.headers)
    assert client.get("/info/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/info/", headers={"Host": "evil.example"}).status_code == 400  # DNS rebinding
    assert client.get("/info/", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    named = make_client(app=client.app.state.effsam.app, origins=("https://viewer.example",))
    reply = named.get("/info/", headers={"Origin": "https://viewer.example"})
    assert reply.headers["access-control-allow-origin"] == "https://viewer.example"
    assert "access-control-allow-credentials" not in reply.headers
    assert named.options("/info/", headers={"Origin": "https://viewer.example"}).status_code == 204
    assert named.get("/info/", headers=evil).status_code == 403
    with pytest.raises(UsageError, match="origin is"):
        ServerSettings(Path("x"), origins=("*",))


ISSUER = "https://users.example/realms/effsam"


@pytest.fixture(scope="module")
def keys():
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    return {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("one", "two")}


@pytest.fixture
def oidc(keys):
    """A gate over a provider that is not asked over a network; `offered` holds the keys that it shows."""
    jwt = pytest.importorskip("jwt")
    settings = OidcSettings(ISSUER)
    offered = ["one"]

    def fetch(address, form):
        if address.endswith("openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": "keys", "token_endpoint": "token"}
        to_json = jwt.algorithms.RSAAlgorithm.to_jwk
        return {
            "keys": [{**json.loads(to_json(keys[k].public_key())), "kid": k, "use": "sig"} for k in offered]
        }

    provider = Provider(settings, fetch)
    provider.offered = offered
    return provider


def token(keys, key="one", algorithm="RS256", secret=None, **changes):
    jwt = pytest.importorskip("jwt")
    claims = {
        "iss": ISSUER, "aud": "monailabel-app", "sub": "1", "exp": time.time() + 60, "preferred_username": "ann",
        "realm_access": {"roles": ["monailabel-annotator"]},
    }  # fmt: skip
    claims = {k: v for k, v in (claims | changes).items() if v is not None}
    return jwt.encode(
        claims, keys[key] if secret is None else secret or None, algorithm=algorithm, headers={"kid": key}
    )


def test_hole_13_tokens_and_roles(make_client, make_app, oidc, keys):
    app = make_app()
    settings = ServerSettings(Path(app.app_dir), oidc=oidc.settings)
    client = make_client(app=app, gate=Gate(settings, oidc), oidc=oidc.settings)

    def status(method, path, **claims):
        return client.request(
            method, path, headers={"Authorization": f"Bearer {token(keys, **claims)}"}
        ).status_code

    assert client.get("/info/").status_code == 401
    assert status("GET", "/info/") == 200
    assert status("GET", "/info/", aud="other") == 401
    assert status("GET", "/info/", iss="https://other.example") == 401
    assert status("GET", "/info/", exp=time.time() - 60) == 401
    assert status("GET", "/info/", exp=None) == 401
    assert status("GET", "/info/", key="two") == 401
    assert status("GET", "/info/", algorithm="HS256", secret="x" * 64) == 401
    assert status("GET", "/info/", algorithm="none", secret="") == 401
    assert status("GET", "/info/", realm_access=None) == 403
    assert status("GET", "/info/", realm_access={"roles": ["admin"]}) == 403
    needs = {
        Role.USER: ("GET", "/info/"),
        Role.ANNOTATOR: ("PUT", "/datastore/image/info?image=a"),
        Role.ADMIN: ("DELETE", "/train/"),
    }
    for role in Role:
        for needed, (method, path) in needs.items():
            got = status(method, path, realm_access={"roles": [f"monailabel-{role.name.lower()}"]})
            assert got == (200 if role >= needed else 403), (role, needed)
    oidc.offered[:] = ["two"]  # the provider has changed its keys
    assert status("GET", "/info/", key="two") == 401  # asked for too recently
    oidc._fetched = time.monotonic() - 60
    assert status("GET", "/info/", key="two") == 200
    assert status("GET", "/info/", key="one") == 401
    with pytest.raises(UsageError, match="expected an https address"):
        OidcSettings("http://users.example")


SECRET = "s3cret-of-many-characters"


def test_hole_14_browser_and_slicer_with_a_log_in(make_client):
    client = make_client(token=SECRET)
    assert client.get("/auth/").json() == {"enabled": True}
    assert client.get("/info/").status_code == 401
    assert client.get("/datastore/image?image=a").status_code == 401
    assert client.post("/auth/token", data={"username": "x", "password": "wrong"}).status_code == 401
    found = client.post("/auth/token", data={"username": "x", "password": SECRET}).json()
    header = {"Authorization": f"{found['token_type']} {found['access_token']}"}
    assert client.get("/auth/token/valid", headers=header).json()["roles"] == ["admin"]
    assert client.get("/datastore/image?image=a", headers=header).status_code == 200
    reply = client.post("/auth/session", data={"password": SECRET}, follow_redirects=False)
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/info/").status_code == 200  # the cookie goes along
    for _ in range(10):
        assert client.post("/auth/token", data={"password": "wrong"}).status_code in {401, 429}
    assert client.post("/auth/token", data={"password": SECRET}).status_code == 429


def test_hole_14_nobody_listens_to_the_network_without_a_log_in(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.1.5", "server.example"):
        with pytest.raises(UsageError, match="expected a log-in then"):
            ServerSettings(tmp_path, host=host)
        assert ServerSettings(tmp_path, host=host, token=SECRET).has_login
        assert not ServerSettings(tmp_path, host=host, insecure=True).has_login
    with pytest.raises(UsageError, match="16 plain characters") as error:
        ServerSettings(tmp_path, token="short")
    assert "short'" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "../system", "..%2f..%2fsystem", "studies/../../system", "instances/../../system", "system", "",
        "studies/1.2/x",
        "studies/1.2/series/a", "studies/1.2/series/1.2/instances/1.2/bulk/../../x", "studies//series", "studies/.1",
        "tools/execute-script", "studies/1.2?x", "studies/1.2#x", "studies/" + "1" * 65, "http://evil.example/studies",
    ],
)  # fmt: skip
def test_hole_15_proxy_escapes(path):
    from monai_effsam.labelling.server.errors import Refusal

    with pytest.raises(Refusal) as error:
        check_dicom_path("GET", path)
    assert error.value.status_code == 404


def test_hole_15_proxy_passes_dicomweb_only():
    one = "studies/1.2/series/1.3/instances/1.4"
    for path in (
        "studies",
        "studies/1.2/metadata",
        f"{one}/frames/1,2",
        f"{one}/bulk/7fe00010",
        f"{one}/rendered",
    ):
        assert check_dicom_path("GET", path) == path
    assert check_dicom_path("POST", "studies/1.2") == "studies/1.2"
    from monai_effsam.labelling.server.errors import Refusal

    with pytest.raises(Refusal):
        check_dicom_path("POST", one)


def test_hole_16_logs(client, make_client, tmp_path):
    log = tmp_path / "state" / "logs" / "app.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("WARNING read /srv/ann/secret/a.nii.gz from http://user:pw@pacs/x\n")
    text = client.get("/logs/").text
    assert "a.nii.gz" in text
    assert "/home" not in text
    assert "pw" not in text
    assert client.get("/logs/gpu").status_code == 404
    assert make_client(app=client.app.state.effsam.app, token=SECRET).get("/logs/").status_code == 401


def test_hole_17_replies_tell_no_paths_and_no_traces(client, tmp_path, monkeypatch):
    client.put("/datastore/label?image=a", files={"label": ("a.nii.gz", b"label")})
    replies = [
        client.get("/info/"),
        client.get("/datastore/?output=all"),
        client.get("/datastore/?output=train"),
        client.post("/activelearning/first", json={}),
        client.get("/datastore/image/info?image=a"),
        client.get("/datastore/label/info?label=a&tag=final"),
        client.put("/session/", files={"files": ("/srv/ann/x.nii.gz", b"x")}),
        client.post("/infer/automatic?image=a&output=json"),
    ]
    for reply in replies:
        assert reply.status_code == 200
        assert str(tmp_path) not in reply.text
        assert "/tmp" not in reply.text

    def fail(request):
        raise RuntimeError(f"{tmp_path}/x failed\nat line 3")

    monkeypatch.setattr(client.app.state.effsam.app, "infer", fail)
    logging.disable(logging.CRITICAL)
    try:
        reply = client.post("/infer/automatic?image=a")
    finally:
        logging.disable(logging.NOTSET)
    assert reply.status_code == 500
    assert "RuntimeError" in one_line(reply)


def test_hole_18_bodies_without_limit(make_client, make_app, tmp_path):
    limits = Limits(body=1000, upload=5000, files=2, sessions=2, session_bytes=4000)
    client = make_client(limits=limits)
    large = b"x" * 6000
    for method, path, name in (
        ("PUT", "/datastore/?image=x", "file"),
        ("PUT", "/datastore/label?image=a", "label"),
        ("PUT", "/session/", "files"),
        ("POST", "/infer/automatic", "file"),
    ):
        reply = client.request(method, path, files={name: ("x.nii.gz", large)})
        assert reply.status_code == 413, path
        one_line(reply)
    assert client.post("/train/decoder", content=b" " * 2000).status_code == 413
    lying = client.post("/train/decoder", content=(b" " * 500 for _ in range(4)))  # tells no length
    assert lying.status_code == 413
    assert client.put("/session/", files=[("files", ("x.dcm", b"x"))] * 3).status_code == 413
    names = [
        client.put("/session/", files={"files": ("x.nii.gz", b"x" * 1000)}).json()["session_id"]
        for _ in range(3)
    ]
    assert [client.get(f"/session/{name}").status_code for name in names] == [404, 200, 200]
    assert client.put("/session/", files={"files": ("x.nii.gz", b"")}).status_code == 400


def test_hole_19_nothing_stays_for_ever(make_client, tmp_path):
    client = make_client()
    state = client.app.state.effsam
    session = client.put("/session/?expiry=1", files={"files": ("x.nii.gz", b"x")}).json()["session_id"]
    assert client.get(f"/session/{session}").json()["expiry"] == 1
    assert client.get("/datastore/dataset").status_code == 404
    broken = tmp_path / "state" / "sessions" / "no session"
    broken.mkdir()
    stray = state.uploads / "x.nii.gz"
    stray.write_bytes(b"x")
    old = time.time() - 7200
    for path in (
        stray,
        broken,
        *(tmp_path / "state" / "sessions" / session).iterdir(),
        broken.parent / session,
    ):
        os.utime(path, (old, old))
    state.clean()
    assert list(state.uploads.iterdir()) == []
    assert list((tmp_path / "state" / "sessions").iterdir()) == []
    for _ in range(30):
        client.post("/train/decoder?enqueue=true", json={"max_epochs": 0})
        while state.training.running():
            time.sleep(0.002)
    assert len(client.get("/train/?all=true").json()) == 20
    before = len(list(Path(tempfile_folder()).glob("*.nrrd")))
    client.post("/infer/automatic?image=a")
    assert len(list(Path(tempfile_folder()).glob("*.nrrd"))) == before


def tempfile_folder():
    import tempfile

    return tempfile.gettempdir()


def test_hole_20_nothing_on_a_command_line(client, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "fork", refuse)
    job = client.post("/train/decoder", json={"max_epochs": 1}).json()
    assert job["status"] in {"SUBMITTED", "RUNNING", "DONE"}
    while client.get("/train/?check_if_running=true").status_code == 200:
        time.sleep(0.01)
    assert client.get("/train/").json()["status"] == "DONE"


def test_hole_21_nothing_of_a_request_is_evaluated():
    folder = Path(sys.modules[ServerSettings.__module__].__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        for word in ("eval(", "exec(", "pickle.load", "jit.load", "shell=True", "os.system", "yaml.load"):
            assert word not in text, path.name
        assert text.count("torch.load(") == text.count("weights_only=True"), path.name


def test_hole_22_no_download_at_start(make_app, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert make_app().tasks


def test_hole_23_viewer_pages_stay_in_their_folder(client):
    for path in ("/ohif/..%2f..%2fetc%2fpasswd", "/static/ohif/../../x", "/ohif/"):
        assert client.get(path).status_code == 404


def test_shape_of_masks_is_that_of_the_image(client):
    reply = client.post(
        "/infer/automatic?image=a&output=image", data={"params": '{"result_extension": ".nrrd"}'}
    )
    head = reply.content.split(b"\n\n")[0].decode()
    assert "sizes: 30 20 5" in head
    assert np.frombuffer(reply.content[:4], np.uint8).tobytes() == b"NRRD"
