# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The oracle of the simulation against a running server: it labels what it is given, and the server learns."""

import pytest

pytest.importorskip("monailabel")

from monai_effsam.data.sets import read_set
from monai_effsam.errors import DataError
from monai_effsam.labelling.simulating.__main__ import main
from monai_effsam.labelling.simulating.over_http import served
from monai_effsam.labelling.simulating.rounds import read_rows
from tests.labelling.discs import write_set

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client leaves its connections open


def test_rounds_through_a_server(tiny_model, tmp_path):
    folder, out = write_set(tmp_path / "data", 14, 4), tmp_path / "out"
    arguments = [
        "--data", folder.parent, "--model", tiny_model, "--set", "discs", "--out", out, "--seed", 0, "--strategy",
        "combined", "--start", 6, "--step", 4, "--rounds", 2, "--steps", 20, "--batch", 2, "--rate", 3e-3, "--pool", 14,
        "--test", 4, "--http", "--settle", 0,
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
    served_from = out / "served_discs_combined_0"
    assert len(list((served_from / "studies").rglob("final/*.png"))) == 10
    assert list((served_from / "state").rglob("v0001/model.pt"))


def test_a_server_that_does_not_start_is_told(tmp_path, capfd):
    folder = write_set(tmp_path / "data", 2, 0)
    cases = read_set(folder)
    with (
        pytest.raises(DataError, match="did not start"),
        served(cases, tmp_path / "run", tmp_path / "none.pt", tmp_path / "cache"),
    ):
        pass
    assert "none.pt" in capfd.readouterr().err
