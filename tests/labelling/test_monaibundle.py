# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Both bundles in MONAI Label's own app for bundles: copied as their READMEs say, they load offline and infer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

pytest.importorskip("monailabel")

APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"

ASK = """
import json, sys
from monai_effsam.networks.foreign import import_timm
import_timm()  # makes torchvision importable beside a CPU torch, which monailabel needs
import SimpleITK as sitk
sys.path.insert(0, "app")
from main import MyApp
app = MyApp("app", "studies", {"models": "esp_medsam,kd_sam", "zoo_source": "local", "sam2": "false"})
models = app.info()["models"]
told = {"labels": models["kd_sam"]["labels"], "choices": models["esp_medsam"]["config"]["modality"]}
asked = {"image": "polyp", "modality": "endoscopy", "result_extension": ".nrrd", "result_dtype": "uint8"}
for name in ("esp_medsam", "kd_sam"):
    answer = app.infer({"model": name, "box": "90,100,300,320", **asked})
    mask = sitk.ReadImage(answer["file"])
    values = sitk.GetArrayFromImage(mask)
    told[name] = [mask.GetSize(), values[120:300, 120:280].mean(), values[:90].mean()]
try:
    app.infer({"model": "kd_sam", **asked})
except Exception as error:
    told["error"] = str(error)
print("TOLD " + json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.integration
def test_the_bundles_load_in_the_stock_app_from_a_local_zoo_and_infer(root, tmp_path):
    if not APP.is_dir():
        pytest.skip("the sample apps of monailabel are missing")
    shutil.copytree(APP, tmp_path / "app")
    for name in ("esp_medsam", "kd_sam"):
        shutil.copytree(root / "bundles" / name, tmp_path / "app" / "model" / name)
    (tmp_path / "studies").mkdir()
    rows, columns = np.mgrid[:381, :448]
    inside = ((rows - 210) / 100) ** 2 + ((columns - 195) / 95) ** 2 < 1
    rgb = np.where(inside[..., None], (190, 90, 80), (120, 40, 35)).astype(np.uint8)
    Picture.fromarray(rgb).save(tmp_path / "studies" / "polyp.png")
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.split("TOLD ")[1])
    assert told["labels"] == {"object": 1}
    assert told["choices"][0] == "ultrasound"
    assert "endoscopy" in told["choices"]
    for name in ("esp_medsam", "kd_sam"):
        size, within, above = told[name]
        assert size == [448, 381]
        assert within > 0.8, name
        assert above < 0.2, name
    assert "no prompt is given" in told["error"]
