# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The oracle of the simulation against a running server: it labels what it is given, and the server learns."""

import shutil

import pytest

pytest.importorskip("monailabel")

from monai_effsam.labelling.simulating.__main__ import main
from monai_effsam.labelling.simulating.rounds import read_rows
from tests.labelling.discs import write_set

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client leaves its connections open


def test_rounds_through_a_server(serve, tiny_model, tiny_promptable, tmp_path):
    folder, studies = write_set(tmp_path / "data", 14, 4), tmp_path / "studies"
    studies.mkdir()
    for number in range(14):
        shutil.copy(folder / f"images/x{number}.png", studies)
    conf = {"modality": "endoscopy", "model": str(tiny_model), "prompted_model": str(tiny_promptable)}
    running = serve(studies, tmp_path / "state", **conf)
    out = tmp_path / "out"
    arguments = [
        "--data", folder.parent, "--model", tiny_model, "--set", "discs", "--out", out, "--seed", 0, "--strategy",
        "combined", "--start", 6, "--step", 4, "--rounds", 2, "--steps", 20, "--batch", 2, "--rate", 3e-3, "--pool", 14,
        "--test", 4, "--server", running.address, "--settle", 0,
    ]  # fmt: skip
    assert main(list(map(str, arguments))) == 0
    rows = read_rows(out / "rows.jsonl")
    assert [(r.strategy, r.round, r.labels) for r in rows] == [
        ("combined", 0, 0),
        ("combined", 1, 6),
        ("combined", 2, 10),
    ]
    assert rows[-1].dice > rows[0].dice
    assert rows[-1].clicks >= 10
    assert running.app.service.model.path != tiny_model
