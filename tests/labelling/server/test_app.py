# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The whole app behind the server, with small models; and as the stock server finds it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel")

from PIL import Image

from monai_effsam.errors import UsageError
from monai_effsam.labelling.app import LabellingApp


@pytest.fixture
def app(tmp_path, tiny_model, tiny_promptable):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.JPEG")
    conf = {"model": str(tiny_model), "prompted_model": str(tiny_promptable), "modality": "endoscopy"}
    return LabellingApp(str(tmp_path / "state"), str(folder), conf)


def test_masks_and_a_new_model(app, make_client, tiny_model, tiny_promptable, tmp_path):
    client = make_client(app=app)
    models = client.get("/info/").json()["models"]
    assert models["automatic"]["type"] == "segmentation"
    reply = client.post("/infer/automatic?image=a&output=image")
    assert reply.status_code == 200
    assert b"sizes: 64 48" in reply.content
    told = client.post("/infer/automatic?image=a&output=json").json()
    assert {"latencies", "label_names", "quality"} <= set(told)
    for params in ('{"foreground": [[3, 4, 0]]}', '{"roi": [40, 10, 30, 5, 0, 0]}'):
        assert client.post("/infer/prompted_2d?image=a", data={"params": params}).status_code == 200, params
    before = app.service.model
    with tiny_model.open("rb") as file:
        reply = client.put("/model/automatic", files={"file": ("model.pt", file)})
    assert reply.status_code == 200, reply.text
    assert app.service.model is not before
    version = tmp_path / "state" / "model" / "self_prompting" / reply.json()["version"] / "model.pt"
    assert app.service.model.path == version
    with tiny_promptable.open("rb") as file:
        reply = client.put("/model/prompted_2d", files={"file": ("model.pt", file)})
    other = tmp_path / "state" / "model" / "promptable" / reply.json()["version"] / "model.pt"
    assert app.service.prompted_model.path == other


def test_settings_are_known_ones(tmp_path):
    with pytest.raises(UsageError, match="conf: 'modalty' is unknown"):
        LabellingApp(str(tmp_path / "state"), str(tmp_path), {"modalty": "ct"})


def test_the_stock_server_finds_the_app(root):
    from monailabel.utils.others.class_utils import get_class_of_subclass_from_file

    found = get_class_of_subclass_from_file(
        "main", str(Path(root) / "apps" / "effsam" / "main.py"), "MONAILabelApp"
    )
    assert found is LabellingApp


def test_pages_lead_to_the_log_in_and_back(make_client):
    client = make_client(token="0123456789abcdef")
    reply = client.get("/ohif/effsam?x=1", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")
    assert client.get("/info/").status_code == 401
