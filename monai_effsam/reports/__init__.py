# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pages, tables and plots for people to look at."""

from monai_effsam.reports.page import Finding, Picture, is_our_page, make_page
from monai_effsam.reports.table import markdown_table, results_page, score_table

__all__ = [
    "Finding",
    "Picture",
    "is_our_page",
    "make_page",
    "markdown_table",
    "results_page",
    "score_table",
]
