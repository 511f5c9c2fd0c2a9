# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Ways to look for architectures behind one interface: differentiable, random, evolutionary, NSGA-II."""

from monai_effsam.nas.search.differentiable import DifferentiableSearcher, SupernetMaterial, frame_name
from monai_effsam.nas.search.discrete import (
    EvolutionarySearcher,
    NsgaSearcher,
    RandomSearcher,
    affordable_sample,
)
from monai_effsam.nas.search.schedule import DifferentiableSettings
from monai_effsam.nas.search.score_book import ScoreBook
from monai_effsam.nas.search.searcher import (
    ArchitectureSearcher,
    Objective,
    RankedArchitecture,
    SearchProblem,
)
from monai_effsam.nas.search.supernet_training import SupernetTraining, choice_entropy, collapse_signs

__all__ = [
    "ArchitectureSearcher",
    "DifferentiableSearcher",
    "DifferentiableSettings",
    "EvolutionarySearcher",
    "NsgaSearcher",
    "Objective",
    "RandomSearcher",
    "RankedArchitecture",
    "ScoreBook",
    "SearchProblem",
    "SupernetMaterial",
    "SupernetTraining",
    "affordable_sample",
    "choice_entropy",
    "collapse_signs",
    "frame_name",
]
