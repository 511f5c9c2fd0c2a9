# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pages, tables and plots for people to look at."""

from monai_effsam.reports.model_card import CardSources, model_card
from monai_effsam.reports.page import Finding, Picture, is_our_page, make_page
from monai_effsam.reports.table import markdown_table, results_page, score_table

__all__ = [
    "CardSources",
    "Finding",
    "Picture",
    "is_our_page",
    "make_page",
    "markdown_table",
    "model_card",
    "results_page",
    "score_table",
]
