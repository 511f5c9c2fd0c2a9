# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Models as graphs for runtimes without torch. Who adds a network adds a file here and a line in `folder`."""

from monai_effsam.inference.export.folder import EXPORTS, export_model
from monai_effsam.inference.export.int8 import Int8Settings, calibration_pictures
from monai_effsam.inference.export.parity import parity
from monai_effsam.inference.export.tracing import trace_graph, write_openvino

__all__ = [
    "EXPORTS",
    "Int8Settings",
    "calibration_pictures",
    "export_model",
    "parity",
    "trace_graph",
    "write_openvino",
]
