# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""3D Slicer's plug-in: its own files, loaded unchanged, with stand-ins for Slicer."""

import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

PLUGIN = Path(sys.prefix) / "monailabel" / "plugins" / "slicer" / "MONAILabel"
STANDINS = (
    "ctk", "qt", "vtk", "vtkSegmentationCore", "slicer", "slicer.i18n", "slicer.util", "sitkUtils", "SampleData",
    "slicer.ScriptedLoadableModule", "DICOMScalarVolumePlugin", "DICOMLib",
)  # fmt: skip


class StandIn(types.ModuleType):
    """A module of Slicer in which every name is there and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, mock.MagicMock(name=f"{self.__name__}.{name}"))
        return getattr(self, name)


class Blank:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


def plugin_logic(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plug-in's logic, connected to a server; the test is skipped where its files are not beside this Python.

    Args:
        address: of the server.
        folder: for its downloads.
        monkeypatch: takes the stand-ins away again.
    """
    if not (PLUGIN / "MONAILabel.py").is_file():
        pytest.skip("the files of Slicer's plug-in are not beside this Python")
    for name in STANDINS:
        monkeypatch.setitem(sys.modules, name, StandIn(name))
    base = sys.modules["slicer.ScriptedLoadableModule"]
    base.__all__ = [
        f"ScriptedLoadable{part}" for part in ("Module", "ModuleWidget", "ModuleLogic", "ModuleTest")
    ]
    for name in base.__all__:
        setattr(base, name, type(name, (Blank,), {}))
    sys.modules["slicer.util"].VTKObservationMixin = type("VTKObservationMixin", (Blank,), {})
    sys.modules["slicer.i18n"].tr = lambda text: text
    sys.modules["slicer.i18n"].translate = lambda _, text: text
    sys.modules["slicer"].util, sys.modules["slicer"].i18n = (
        sys.modules["slicer.util"],
        sys.modules["slicer.i18n"],
    )
    sys.modules["qt"].QDialog = type("QDialog", (Blank,), {})
    monkeypatch.syspath_prepend(str(PLUGIN))
    with warnings.catch_warnings():  # `cgi` among others
        warnings.simplefilter("ignore")
        spec = importlib.util.spec_from_file_location("MONAILabel", PLUGIN / "MONAILabel.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "MONAILabel", module)
        spec.loader.exec_module(module)
    (folder / "slicer").mkdir(exist_ok=True)
    logic = module.MONAILabelLogic(tmpdir=str(folder / "slicer"))  # which it removes when it goes
    logic.setServer(address)
    logic.setClientId("ann")
    return logic
