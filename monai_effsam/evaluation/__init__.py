# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How well a model does on labelled sets: what `effsam segment` writes, compared with what people drew.

cases -> folder run or simulated user -> masks -> scores -> summary -> table, report
cases -> simulated user in front of several models -> lines -> table of models
"""

from monai_effsam.evaluation.cost import model_cost
from monai_effsam.evaluation.models_rows import PromptedScore
from monai_effsam.evaluation.models_run import ModelsSettings, compare_models
from monai_effsam.evaluation.outputs import data_words, model_name
from monai_effsam.evaluation.robot import RobotUser
from monai_effsam.evaluation.rows import ROWS, ScoreRow, rows_for
from monai_effsam.evaluation.run import evaluate_cases, evaluate_model, evaluate_sets
from monai_effsam.evaluation.scores import FileScore, score_file
from monai_effsam.evaluation.settings import EvaluationSettings
from monai_effsam.evaluation.summary import summarise
from monai_effsam.evaluation.trivial import ConstantMask, constant_masks, ellipse_in

__all__ = [
    "ROWS",
    "ConstantMask",
    "EvaluationSettings",
    "FileScore",
    "ModelsSettings",
    "PromptedScore",
    "RobotUser",
    "ScoreRow",
    "compare_models",
    "constant_masks",
    "data_words",
    "ellipse_in",
    "evaluate_cases",
    "evaluate_model",
    "evaluate_sets",
    "model_cost",
    "model_name",
    "rows_for",
    "score_file",
    "summarise",
]
