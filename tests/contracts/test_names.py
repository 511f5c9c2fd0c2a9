# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Public names: ours alone among all that MONAI finds by short name, and listed in `__all__`."""

import ast
import importlib
import inspect
import pkgutil
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from monai.bundle import ComponentLocator

import monai_effsam
from monai_effsam import errors

APART = ("monai_effsam.cli",)
"""Command modules share `add_arguments` and `run` on purpose, and no bundle names them."""

_KERNELS = "monai_effsam.networks.layers.local_attention.triton_"
WITHOUT_TRITON = (
    () if find_spec("triton") else tuple(_KERNELS + name for name in ("place", "tiles", "offsets"))
)
"""Kernels, which are nothing without their language."""


@pytest.fixture(scope="module")
def modules():
    """Every module of the package, by name."""
    names = [info.name for info in pkgutil.walk_packages(monai_effsam.__path__, "monai_effsam.")]
    names = [name for name in names if name not in WITHOUT_TRITON]
    return {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}


def defined(module):
    """Public classes and functions that a module defines itself."""
    return {
        name
        for name, thing in vars(module).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.fixture(scope="module")
def homes(modules):
    """Public name -> the modules that define it."""
    found = defaultdict(list)
    for name, module in modules.items():
        if not name.startswith(APART):
            for public in defined(module):
                found[public].append(name)
    return found


def test_no_class_name_is_used_twice(homes):
    twice = {name: where for name, where in homes.items() if len(where) > 1 and name[0].isupper()}
    assert twice == {}


def test_no_name_is_one_that_monai_has(homes):
    locator = ComponentLocator()
    components = homes.keys() - set(errors.__all__)  # no configuration builds an exception
    where = {name: locator.get_component_module_name(name) for name in components}
    clashes = {name: found for name, found in where.items() if isinstance(found, list)}
    assert [name for name, found in clashes.items() if any(m.startswith("monai.") for m in found)] == []


def test_all_lists_exactly_what_a_module_offers(modules):
    wrong = {
        name: sorted(defined(module) - set(getattr(module, "__all__", ())))
        for name, module in modules.items()
        if not defined(module) <= set(getattr(module, "__all__", ()))
    }
    assert wrong == {}


def test_everything_in_all_exists(modules):
    absent = [
        f"{n}.{public}"
        for n, m in modules.items()
        for public in getattr(m, "__all__", ())
        if not hasattr(m, public)
    ]
    assert absent == []


def test_every_module_with_code_has_an_all(modules):
    without = {name: module for name, module in modules.items() if not hasattr(module, "__all__")}
    bodies = {
        name: ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        for name, module in without.items()
    }
    assert [name for name, body in bodies.items() if len(body) > 1] == []  # more than a docstring


def test_every_command_has_its_row():
    cli = importlib.import_module("monai_effsam.cli.main")
    written = {
        info.name
        for info in pkgutil.iter_modules(importlib.import_module("monai_effsam.cli").__path__)
        if hasattr(importlib.import_module(f"monai_effsam.cli.{info.name}"), "add_arguments")
    }
    assert {command.module.rpartition(".")[2] for command in cli.COMMANDS.values()} == written
