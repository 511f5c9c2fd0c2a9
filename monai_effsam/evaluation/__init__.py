# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How well a model does on labelled sets: what `effsam segment` writes, compared with what people drew."""

from monai_effsam.evaluation.cost import model_cost
from monai_effsam.evaluation.rows import ROWS, ScoreRow, rows_for
from monai_effsam.evaluation.run import evaluate_model, evaluate_sets, model_name
from monai_effsam.evaluation.scores import FileScore, score_file
from monai_effsam.evaluation.summary import summarise

__all__ = [
    "ROWS",
    "FileScore",
    "ScoreRow",
    "evaluate_model",
    "evaluate_sets",
    "model_cost",
    "model_name",
    "rows_for",
    "score_file",
    "summarise",
]
