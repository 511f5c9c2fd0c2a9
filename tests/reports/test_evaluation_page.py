# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The report: table first, then the worst, then the plots; complete in itself."""

import re

import numpy as np
import pytest

from monai_effsam.reports import Picture, Strip, evaluation_page, is_our_page

GREY = np.full((30, 50, 3), 128, np.uint8)


@pytest.fixture
def summary():
    score = {"n": 2, "groups": 2, "mean": 0.7, "sd": 0.1, "low": 0.6, "high": 0.8, "median": 0.7, "tenth": 0.6,
             "below_half": 0.0}  # fmt: skip
    more = {
        "iou": 0.6,
        "surface_dice": 0.5,
        "precision": 0.8,
        "recall": 0.7,
        "hd95": 3.25,
        "unit": "px",
        "missed": 0,
    }
    row = {"title": "polyps", "set": "kvasir", "targets": ["polyp"], "counts": "present", "floor": 0.6, "aim": 0.9,
           "score": score, "trivial": 0.3, "more": more, "absent": {"n": 0, "clear": None}}  # fmt: skip
    facts = {"files": 2, "slices": 2, "groups": 2, "files_with_foreign_targets": 0, "median_ms": 30.0,
             "wall_ms_a_file": 20.0, "median_stages_ms": {"read": 10.0, "encode": 20.0}}  # fmt: skip
    bins = [{"low": 0.9, "high": 1.0, "n": 2, "said": 0.95, "true": 1.0}]
    return {
        "model": {"name": "toy", "sha256": "ab12"},
        "made": {"command": "effsam evaluate DATA -o OUT", "split": "val", "seed": 0, "tolerance": 2.0, "robot": None,
                 "date": "2030-01-02", "device": "cpu", "versions": {"torch": "2.9"}, "threads": 2, "cores": 2,
                 "machine": "Linux"},
        "rows": [row], "others": [], "sets": {"kvasir": facts},
        "calibration": {"kvasir": {"told": 2, "present": 2, "masks": 2}},
        "reliability": {"presence": bins, "quality": bins},
        "time": {"pictures": 2, "median_ms": 30.0}, "limits": {"median_ms": (400.0, 150.0), "peak_mb": (1200.0, None)},
        "peak_mb": 500,
    }  # fmt: skip


def page_of(summary, name="kvasir"):
    worst = {name: [Picture("a.png: polyp", name, "Dice 0.600", GREY, GREY, captions=("label", "answer"))]}
    return evaluation_page(summary, [Strip("polyps", (("a.png", 0.6), ("b.png", 0.8)), 0.3)], worst)


def test_parts_come_in_the_order_of_interest(summary):
    headings = re.findall(r"<h2>(.*?)</h2>", page_of(summary))
    assert headings == [
        "Scores", "Every file", "Worst cases", "kvasir", "Overlap and outlines", "Time and memory",
        "Presence and quality", "How it was measured",
    ]  # fmt: skip


def test_the_table_says_what_the_summary_says(summary):
    page = page_of(summary)
    cells = re.findall(r"<td>(.*?)</td>", page)[:12]
    assert cells == [
        "polyps", "2", "2", "<b>0.700</b>", "0.600 to 0.800", "0.300", "0.700", "0.600", "0%", "0.600", "0.900",
        "floor",
    ]  # fmt: skip
    assert "<code>effsam evaluate DATA -o OUT</code>" in page
    assert "<td>3.2</td>" in page


def test_two_reliability_plots_a_strip_plot_and_a_speed_plot(summary):
    labels = re.findall(r'aria-label="(.*?)"', page_of(summary))
    assert labels == ["Dice of every file, by row", "time a file by stage and set", "Presence", "Quality"]


def test_nothing_is_asked_of_another_machine(summary, tmp_path):
    page = page_of(summary)
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|#)', page) == []
    assert not re.search(r"@import|url\(|<script|<iframe|<link|http", page)
    path = tmp_path / "report.html"
    path.write_text(page)
    assert is_our_page(path)


def test_names_are_escaped(summary):
    page = page_of(summary, '<b>"x"')
    assert '<b>"x"' not in page
    assert "&lt;b&gt;" in page


def test_without_pictures_or_plots_there_are_no_empty_frames(summary):
    del summary["reliability"], summary["sets"]["kvasir"]["median_stages_ms"]
    page = evaluation_page(summary, [], {"kvasir": []})
    assert "Worst cases" not in page
    assert "<svg" not in page
