# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Known holes of the stock server, replayed and refused, one function a hole: other sites, users, PACS and log."""

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("monailabel")


from monai_effsam.errors import UsageError
from monai_effsam.labelling.server import OidcSettings, Role, ServerSettings
from monai_effsam.labelling.server.auth import Gate
from monai_effsam.labelling.server.oidc import Provider
from monai_effsam.labelling.server.routes.proxy import check_dicom_path


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
