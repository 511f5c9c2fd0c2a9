# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The ES modules that need no browser, in Node: NRRD files and grids. None of them puts text of others into HTML."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HELP = """
import { Grid } from 'MODULES/grid.js';
import { fittingOf } from 'MODULES/models.js';
import { readNrrd, writeNrrd } from 'MODULES/nrrd.js';
const image = k => ({ imagePositionPatient: [5, 6, 3 * k], rowCosines: [1, 0, 0], columnCosines: [0, 1, 0],
  columnPixelSpacing: 0.5, rowPixelSpacing: 2 });
const grid = (ids, located = true) => new Grid(ids.map(String),
  id => ({ plane: image(Number(id)), rows: 3, columns: 4, located }));
const count = n => Uint8Array.from({ length: n }, (_, at) => at);
const failing = async work => { try { await work(); return null; } catch (error) { return error.message; } };
"""


@pytest.fixture
def modules(root: Path) -> Path:
    return root / "apps" / "effsam" / "ohif"


@pytest.fixture
def run(modules: Path, tmp_path: Path) -> Any:
    """A function: JavaScript with a `result` -> its value."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is missing")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "package.json").write_text('{"type": "module"}')
    for path in modules.glob("*.js"):
        shutil.copy(path, tmp_path / "modules")

    def evaluate(code: str) -> Any:
        text = HELP.replace("MODULES", "./modules") + code + "\nconsole.log(JSON.stringify(result));"
        (tmp_path / "one.mjs").write_text(text)
        done = subprocess.run([node, "one.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return evaluate


def test_nrrd_there_and_back(run: Any) -> None:
    found = run("""
const mask = { sizes: [4, 3, 2], data: count(24), origin: [1, 2, 3], directions: [[0.5, 0, 0], [0, 2, 0], [0, 0, -3]] };
const back = await readNrrd(await (await writeNrrd(mask)).arrayBuffer());
const result = { ...back, data: [...back.data] };""")
    directions = [[0.5, 0, 0], [0, 2, 0], [0, 0, -3]]
    assert found == {
        "sizes": [4, 3, 2],
        "data": list(range(24)),
        "origin": [1, 2, 3],
        "directions": directions,
    }


def test_nrrd_of_two_axes_lies_nowhere(run: Any) -> None:
    found = run("""
const head = 'NRRD0004\\ntype: uint8\\ndimension: 2\\nsizes: 3 2\\nencoding: raw\\n\\n';
const back = await readNrrd(await new Blob([head, count(6)]).arrayBuffer());
const result = [back.sizes, back.origin, [...back.data]];""")
    assert found == [[3, 2, 1], None, [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("GIF89a\n\n", "is no NRRD file"),
        ("NRRD0004\ntype: short\nsizes: 2 1 1\nencoding: raw\n\n", "expected one byte a voxel"),
        ("NRRD0004\ntype: uint8\nsizes: 2 1 1\nencoding: hex\n\n", "expected raw or gzip"),
        ("NRRD0004\ntype: uint8\nsizes: 9 1 1\nencoding: raw\n\n", "has 2 voxels, expected 9 x 1 x 1"),
    ],
)
def test_files_that_are_no_masks_are_refused(run: Any, head: str, line: str) -> None:
    code = f"new Blob([{json.dumps(head)}, count(2)]).arrayBuffer()"
    assert line in run(f"const result = await failing(async () => readNrrd(await {code}));")


def test_slices_count_along_their_normal_in_any_order(run: Any) -> None:
    found = run("""
const one = grid([2, 0, 1]);
const result = [one.imageIds, one.origin, one.directions, grid([2, 0, 1], false).imageIds];""")
    assert found == [["0", "1", "2"], [5, 6, 0], [[0.5, 0, 0], [0, 2, 0], [0, 0, 3]], ["2", "0", "1"]]


def test_pixel_of_a_place_with_oblong_pixels(run: Any) -> None:
    found = run("""
const one = grid([2, 0, 1]);
const asked = [[[6.1, 9.1, 3], '1'], [[6.1, 9.1, 4.6], null], [[-90, 90, 0], '0']];
const result = asked.map(([world, id]) => one.pixelAt(world, id));""")
    assert found == [[2, 2, 1], [2, 2, 2], [0, 2, 0]]


def test_mask_is_placed_by_its_axes(run: Any) -> None:
    found = run("""
const one = grid([0, 1]);
const own = { sizes: [4, 3, 2], data: count(24), origin: one.origin, directions: one.directions };
const back = { ...own, origin: [5, 6, 3], directions: [own.directions[0], own.directions[1], [0, 0, -3]] };
const swapped = [[0, 2, 0], [0.5, 0, 0], [0, 0, 3]];
const turned = { sizes: [3, 4, 2], data: count(24), origin: [5, 6, 0], directions: swapped };
const result = [own, back, turned].map(mask => [...one.place(mask)]);""")
    own = list(range(24))
    turned = [own[k * 12 + i * 3 + j] for k in range(2) for j in range(3) for i in range(4)]
    assert found == [own, own[12:] + own[:12], turned]


def test_mask_that_lies_elsewhere_is_refused(run: Any) -> None:
    found = run("""
const one = grid([0, 1]);
const own = { sizes: [4, 3, 2], data: count(24), origin: one.origin, directions: one.directions };
const result = [
  await failing(() => one.place({ ...own, origin: [5, 6, 30] })),
  await failing(() => one.place({ ...own, sizes: [4, 3, 1] })),
  await failing(() => one.place({ ...own, directions: [[1, 1, 0], [1, -1, 0], [0, 0, 1]] })),
];""")
    assert found == [
        "The mask lies 30.0 mm away from the images.",
        "The mask has 4 x 3 x 1 voxels, the images 4 x 3 x 2.",
        "The axes of the mask are not those of the images.",
    ]


def test_labels_that_fit_a_modality_are_those_that_the_server_tells(run: Any) -> None:
    found = run("""
const info = { models: { own: { modalities: { US: ['head'], CT: [] } }, stock: {} } };
const asked = [['own', 'US'], ['own', ' us'], ['own', 'CT'], ['own', 'OT'], ['own', undefined], ['stock', 'US']];
const result = [...asked.map(([name, modality]) => fittingOf(info, name, modality)), fittingOf(null, 'own', 'US')];""")
    assert found == [["head"], ["head"], None, None, None, None, None]


def test_no_module_makes_html_of_text(modules: Path) -> None:
    for path in modules.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
            path.name
        )
        assert text.startswith("// Licensed under the Apache License, Version 2.0 (see LICENSE).\n"), (
            path.name
        )
        assert len(text.splitlines()) < 320, path.name
        assert not re.search(r"https?://", text), path.name
