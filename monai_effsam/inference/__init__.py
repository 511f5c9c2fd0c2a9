# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""From a file to a mask: the `Segmenter`, folder runs, `results.jsonl`.

Names are loaded on first use, so that planning a run and refusing a wrong one never waits for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_effsam.inference.answers import Decoding, Encoding, Segmentation
    from monai_effsam.inference.model_path import default_model_path
    from monai_effsam.inference.plan import Job, Plan, Request, make_plan
    from monai_effsam.inference.prompted import PromptedOutline, outline_prompted
    from monai_effsam.inference.results import ResultsFile, TargetResult
    from monai_effsam.inference.run import Outcome, run_plan
    from monai_effsam.inference.segmenter import Segmenter

__all__ = [
    "Decoding",
    "Encoding",
    "Job",
    "Outcome",
    "Plan",
    "PromptedOutline",
    "Request",
    "ResultsFile",
    "Segmentation",
    "Segmenter",
    "TargetResult",
    "default_model_path",
    "make_plan",
    "outline_prompted",
    "run_plan",
]

_HOMES = {
    "answers": ("Decoding", "Encoding", "Segmentation"),
    "model_path": ("default_model_path",),
    "plan": ("Job", "Plan", "Request", "make_plan"),
    "prompted": ("PromptedOutline", "outline_prompted"),
    "results": ("ResultsFile", "TargetResult"),
    "run": ("Outcome", "run_plan"),
    "segmenter": ("Segmenter",),
}


def __getattr__(name: str) -> Any:
    """The public name `name`, from the module that holds it."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
