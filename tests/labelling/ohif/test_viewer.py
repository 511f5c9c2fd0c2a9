# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The routes that serve OHIF, and the folder that it is fetched into."""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("monailabel")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.server import ohif_fetch
from monai_effsam.labelling.server.ohif_fetch import fetch_ohif, unpack_ohif
from monai_effsam.labelling.server.viewer import MODULES_AT, find_dist, modules_folder, viewer_router

FILES = {
    "index.html": "<html>start</html>",
    "app-config.js": "theirs",
    "init-service-worker.js": "importScripts('https://elsewhere')",
    "app.bundle.0123456789abcdef0123.js": "app",
    "assets/logo.svg": "<svg/>",
}


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A viewer as npm's package has it."""
    folder = tmp_path / "package" / "dist"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def client(dist: Path) -> TestClient:
    app = FastAPI()
    app.include_router(viewer_router(dist))
    return TestClient(app)


def config_of(client: TestClient) -> dict:
    text = client.get("/app-config.js").text
    return json.loads(text.removeprefix("window.config = ").removesuffix(";\n"))


def test_configuration_names_this_server_only(client: TestClient) -> None:
    config = config_of(client)
    [source] = config["dataSources"]
    roots = [value for key, value in source["configuration"].items() if key.endswith(("Root", "root"))]
    assert roots == ["/proxy/dicom/qido", "/proxy/dicom/wado", "/proxy/dicom/wado"]
    assert config["routerBasename"] == "/ohif"
    for name in (*config["extensions"], *config["modes"]):
        assert client.get(name).headers["content-type"].startswith("text/javascript")


def test_id_of_the_extension_is_where_it_is_served() -> None:
    text = (modules_folder() / "extension.js").read_text()
    assert f"export const id = '{MODULES_AT}/extension.js';" in text
    assert f"'{MODULES_AT}/extension.js'" in (modules_folder() / "mode.js").read_text()


@pytest.mark.parametrize("path", ["/ohif/", "/ohif/effsam?StudyInstanceUIDs=1.2", "/ohif"])
def test_pages_are_the_start_page_and_may_speak_to_this_origin_only(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.text == FILES["index.html"]
    rules = dict(rule.split(" ", 1) for rule in reply.headers["content-security-policy"].split("; "))
    assert rules["connect-src"] == "'self' data: blob:"
    assert rules["default-src"] == "'self'"


def test_nothing_is_kept_by_the_browser(client: TestClient) -> None:
    for path in ("/ohif/", "/app-config.js", "/assets/logo.svg", f"{MODULES_AT}/mode.js"):
        assert client.get(path).headers["cache-control"] == "no-store"


def test_service_worker_of_the_viewer_is_empty(client: TestClient) -> None:
    assert client.get("/init-service-worker.js").text == ""


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/%2e%2e/%2e%2e/secret.txt", "/assets/..%2f..%2f..%2fsecret.txt", "/assets", "/nothing.js",
     "/index.html", f"{MODULES_AT}/..%2fmain.py", f"{MODULES_AT}/nothing.js"],
)  # fmt: skip
def test_other_paths_are_not_found(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404
    assert reply.json() == {"detail": "There is no such page."}


def test_viewer_is_found_in_the_folder_of_the_package(dist: Path, tmp_path: Path) -> None:
    assert find_dist(tmp_path) == find_dist(dist) == dist.resolve()
    with pytest.raises(UsageError, match="--fetch-ohif"):
        find_dist(tmp_path / "package" / "dist" / "assets")


def pack(path: Path, files: dict[str, str]) -> str:
    """Write an archive; its hash."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def test_archive_is_unpacked_whole(tmp_path: Path) -> None:
    digest = pack(tmp_path / "a.tgz", {f"package/dist/{name}": text for name, text in FILES.items()})
    out = unpack_ohif(tmp_path / "a.tgz", tmp_path / "new" / "ohif", digest)
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == set(FILES)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["ohif"]


def test_archive_of_another_hash_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.tgz", {"package/dist/index.html": ""})
    with pytest.raises(DataError, match="sha512"):
        unpack_ohif(tmp_path / "a.tgz", tmp_path / "ohif")
    assert not (tmp_path / "ohif").exists()


def test_archive_that_points_outside_is_refused(tmp_path: Path) -> None:
    digest = pack(tmp_path / "a.tgz", {"package/dist/index.html": "", "package/dist/../../../../evil": "x"})
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_ohif(tmp_path / "a.tgz", tmp_path / "ohif", digest)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tgz"]


def test_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        fetch_ohif(tmp_path)


def test_missing_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ohif_fetch.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"npm is missing.*npm pack @ohif/app@"):
        fetch_ohif(tmp_path / "ohif")
