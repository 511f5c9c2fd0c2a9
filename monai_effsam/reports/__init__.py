# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pages, tables and plots for people to look at."""

from monai_effsam.reports.architecture_drawing import architecture_drawing
from monai_effsam.reports.box_chart import Box, box_chart
from monai_effsam.reports.charts import Strip, reliability_plot, stage_plot, strip_plot
from monai_effsam.reports.curves import CurvePanel, CurvePoint, DotPanel, curve_picture, dot_picture
from monai_effsam.reports.evaluation_page import evaluation_page
from monai_effsam.reports.model_card import CardSources, model_card
from monai_effsam.reports.models_page import models_page, models_plot, models_sections
from monai_effsam.reports.page import Finding, Picture, is_our_page, make_article, make_page, render_page
from monai_effsam.reports.search_page import search_page, trajectory_plot
from monai_effsam.reports.table import results_page, results_sections, score_table
from monai_effsam.reports.table_form import Table, html_table, markdown_table

__all__ = [
    "Box",
    "CardSources",
    "CurvePanel",
    "CurvePoint",
    "DotPanel",
    "Finding",
    "Picture",
    "Strip",
    "Table",
    "architecture_drawing",
    "box_chart",
    "curve_picture",
    "dot_picture",
    "evaluation_page",
    "html_table",
    "is_our_page",
    "make_article",
    "make_page",
    "markdown_table",
    "model_card",
    "models_page",
    "models_plot",
    "models_sections",
    "reliability_plot",
    "render_page",
    "results_page",
    "results_sections",
    "score_table",
    "search_page",
    "stage_plot",
    "strip_plot",
    "trajectory_plot",
]
