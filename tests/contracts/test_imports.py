# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Imports run downwards only: which room may use which, and who may open the door to torchvision."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "monai_effsam"

LEAVES = {"errors", "specs", "targets"}
BELOW_ENGINES = {"networks", "losses", "metrics", "nas", "data", "checkpoints"}
BELOW_LABELLING = BELOW_ENGINES | {"inference", "reports", "engines", "evaluation"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "specs": {"errors"},
    "targets": {"errors", "specs"},
    "networks": LEAVES,
    "losses": LEAVES,
    "metrics": LEAVES,
    "data": LEAVES,
    "checkpoints": LEAVES | {"networks"},
    "nas": LEAVES | {"networks", "losses", "metrics"},
    "inference": LEAVES | {"networks", "data", "checkpoints"},
    "reports": LEAVES | {"metrics", "data"},
    "evaluation": LEAVES | {"networks", "metrics", "data", "checkpoints", "inference", "reports"},
    "engines": LEAVES | BELOW_ENGINES,
    "labelling": LEAVES | BELOW_LABELLING,
    "studies": LEAVES | BELOW_LABELLING,
    "cli": LEAVES | BELOW_LABELLING | {"labelling"},
}
"""Room -> rooms that it may import, itself aside. A new room needs a row, here and in the README."""

FLOORS: dict[str, set[str]] = {
    "foreign": set(),
    "layers": {"foreign"},
    "blocks": {"foreign", "layers"},
    "encoders": {"foreign", "layers", "blocks"},
    "prompts": {"foreign", "layers", "blocks"},
    "decoders": {"foreign", "layers", "blocks"},
    "nets": {"foreign", "layers", "blocks", "encoders", "prompts", "decoders"},
}
"""The same inside `networks`."""

BEHIND_TORCHVISION = {"timm", "segment_anything", "torchvision"}
HEAVY = {"torch", "monai", "numpy", "cv2", "timm", "nibabel", "pydicom", "itk", "ignite", "PIL", "scipy"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of everything that a syntax tree imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def steps(level: int) -> Iterator[tuple[Path, str, str]]:
    """(file, from, to) for each import between parts of the package, seen at a level of its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        own = ("monai_effsam", *path.relative_to(PACKAGE).with_suffix("").parts)
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            other = tuple(name.split("."))
            if other[:level] == own[:level] and len(own) > level < len(other) and own[level] != "__init__":
                yield path.relative_to(PACKAGE), own[level], other[level]


def broken(table: dict[str, set[str]], level: int) -> list[str]:
    """The imports at a level that a table does not allow."""
    return [
        f"{path}: {source} imports {target}"
        for path, source, target in steps(level)
        if source != target and target in table and target not in table[source]
    ]


def test_every_room_has_a_row():
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} <= ROOMS.keys()


def test_every_floor_of_the_networks_has_a_row():
    networks = PACKAGE / "networks"
    floors = {p.stem for p in networks.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert floors - {"__init__"} <= FLOORS.keys()


def test_rooms_import_downwards_only():
    assert broken(ROOMS, level=1) == []


def test_floors_of_the_networks_import_downwards_only():
    assert broken(FLOORS, level=2) == []


def test_leaves_need_no_other_package_than_torch():
    names = {
        name.split(".")[0]
        for leaf in LEAVES
        for name in imported(ast.parse((PACKAGE / f"{leaf}.py").read_text()))
    }
    assert names - sys.stdlib_module_names <= {"monai_effsam", "torch"}


def test_modules_behind_torchvision_are_imported_in_functions_only():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.split(".")[0] for node in top for name in imported(node)}
        found += [
            f"{path.relative_to(PACKAGE)} imports {name}" for name in sorted(names & BEHIND_TORCHVISION)
        ]
    assert found == []


@pytest.mark.parametrize(
    "module", ["monai_effsam", "monai_effsam.errors", "monai_effsam.specs", "monai_effsam.targets"]
)
def test_the_package_and_its_leaves_are_cheap_to_import(module):
    code = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_command_modules_are_cheap_to_import():
    code = (
        "import importlib, pkgutil, sys, monai_effsam.cli as cli\n"
        "names = [info.name for info in pkgutil.iter_modules(cli.__path__) if not info.name.startswith('_')]\n"
        "for name in names: importlib.import_module(f'monai_effsam.cli.{name}')\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
