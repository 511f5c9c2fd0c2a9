# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The way through the server to a PACS: query along, headers not, redirects refused; a PACS that is not there."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("monailabel")


@pytest.fixture
def pacs():
    """A server that tells what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(
                (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            moved = self.path.endswith("/9.9")
            self.send_response(302 if moved else 200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Set-Cookie", "pacs=1")
            self.send_header("Location", "http://evil.example/")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        do_POST = do_GET  # the name that http.server looks for

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_query_goes_along_and_headers_do_not(pacs, make_app, make_client):
    address, asked = pacs
    client = make_client(app=make_app(address), pacs_login=("robot", "pw"))
    headers = {"Accept": "application/dicom+json", "Cookie": "secret=1", "X-Secret": "1"}
    reply = client.get("/proxy/dicom/qido/studies?PatientName=A*&limit=5&00100010=B%20C", headers=headers)
    assert (reply.status_code, reply.content) == (200, b"[]")
    assert not {"set-cookie", "location", "server"} & set(reply.headers)
    method, path, sent, _ = asked[-1]
    assert (method, path) == ("GET", "/dicom-web/studies?PatientName=A*&limit=5&00100010=B%20C")
    assert sent["accept"] == "application/dicom+json"
    assert sent["authorization"].startswith("Basic ")
    assert not {"cookie", "x-secret", "origin"} & sent.keys()
    client.post("/proxy/dicom/stow/studies", content=b"x" * 9, headers={"Content-Type": "application/dicom"})
    assert asked[-1][0] == "POST"
    assert asked[-1][3].count(b"x") == 9


def test_what_is_refused_never_reaches_the_pacs(pacs, make_app, make_client):
    address, asked = pacs
    client = make_client(app=make_app(address))
    for path in ("..%2f..%2fsystem", "wado/..%2f..%2fsystem", "qido/studies/..%2f..%2fsystem", "system"):
        assert client.get(f"/proxy/dicom/{path}").status_code == 404
    assert client.get("/proxy/dicom/qido/studies", headers={"Accept": "a\x7fb"}).status_code == 400
    assert client.post("/proxy/dicom/wado/studies", content=b"x").status_code == 405
    assert asked == []
    assert client.get("/proxy/dicom/wado/studies/9.9").status_code == 502


def test_a_pacs_that_is_not_there(make_app, make_client):
    client = make_client(app=make_app("http://127.0.0.1:9/dicom-web"))
    reply = client.get("/proxy/dicom/qido/studies")
    assert (reply.status_code, reply.json()) == (502, {"detail": "proxy: the PACS cannot be reached."})
