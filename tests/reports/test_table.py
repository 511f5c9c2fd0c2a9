# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The results page says what the summary says, in words for people."""

import pytest

from monai_effsam.reports.table import results_page, score_table


def row(mean=0.8, **changes):
    score = {
        "n": 12,
        "groups": 7,
        "mean": mean,
        "low": 0.7,
        "high": 0.9,
        "median": 0.85,
        "tenth": 0.3,
        "below_half": 0.1,
    }
    base = {
        "title": "polyps", "set": "kvasir_seg", "targets": ["polyp"], "counts": "present", "floor": 0.75, "aim": 0.9,
        "score": score, "absent": {"n": 0, "clear": None},
    }  # fmt: skip
    return base | changes


@pytest.fixture
def summary():
    facts = {"files": 12, "slices": 12, "groups": 7, "files_with_foreign_targets": 2, "median_ms": 120.4}
    return {
        "model": {"name": "toy", "sha256": "ab12"},
        "made": {
            "command": "effsam evaluate data -o OUT", "split": "val", "seed": 3, "date": "2030-01-02", "device": "cpu",
            "versions": {"torch": "2.9"}, "threads": 2, "cores": 4, "machine": "Linux x86_64",
        },
        "rows": [row()],
        "others": [row(0.4, title="set: organ", floor=None, aim=None, absent={"n": 8, "clear": 0.75})],
        "sets": {"kvasir_seg": {**facts, "wall_ms_a_file": 99.6}},
        "calibration": {
            "kvasir_seg": {"told": 12, "present": 11, "presence_right": 0.9, "presence_error": 0.05, "masks": 11,
                           "quality_error": 0.12, "quality_bias": -0.03},
            "volumes": {"told": 0, "present": 0, "masks": 0},
        },
        "time": {"pictures": 12, "median_ms": 120.4},
        "limits": {"median_ms": (400.0, 150.0), "peak_mb": (1200.0, None)},
        "peak_mb": 803,
    }  # fmt: skip


def cells(page, title):
    line = next(line for line in page.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_row_with_floor_and_aim(summary):
    assert cells(results_page(summary), "polyps") == [
        "12", "7", "**0.800**", "0.700 to 0.900", "0.850", "0.300", "10%", "0.750", "0.900", "floor",
    ]  # fmt: skip


@pytest.mark.parametrize(("mean", "said"), [(0.9, "aim"), (0.8999, "floor"), (0.75, "floor"), (0.7499, "no")])
def test_what_is_reached_is_decided_before_rounding(mean, said):
    assert cells(score_table([row(mean)]), "polyps")[-1] == said


def test_shares_are_percentages_without_a_median():
    line = cells(score_table([row(0.917, counts="absent", floor=0.7, aim=0.9)]), "polyps")
    assert line == ["12", "7", "**92%**", "70% to 90%", "–", "–", "–", "70%", "90%", "aim"]


def test_a_row_without_files_claims_nothing():
    assert cells(score_table([row(score=None)]), "polyps") == ["0", "0", *["–"] * 5, "0.750", "0.900", "–"]


def test_other_targets_tell_how_often_nothing_is_seen_where_nothing_is(summary):
    assert cells(results_page(summary), "set: organ")[-2:] == ["8", "75%"]


MORE = {
    "iou": 0.7,
    "surface_dice": 0.61,
    "precision": 0.9,
    "recall": None,
    "hd95": 4.56,
    "unit": "mm",
    "missed": 1,
}


def with_more(row, **changes):
    """A row as it is made from this version on."""
    return row | {"trivial": 0.31, "more": MORE | changes, "score": row["score"] | {"sd": 0.123}}


def test_the_trivial_answer_stands_beside_the_mean(summary):
    summary["made"]["tolerance"] = 2.0
    summary["rows"] = [with_more(row())]
    page = results_page(summary)
    assert cells(page, "polyps")[:6] == ["12", "7", "**0.800**", "0.700 to 0.900", "0.310", "0.850"]
    assert "Trivial: mean Dice of one constant mask" in page


def test_a_row_tells_overlap_and_distance(summary):
    summary["made"]["tolerance"] = 1.5
    summary["rows"] = [with_more(row(absent={"n": 4, "clear": 0.5}))]
    part = results_page(summary).partition("## Overlap and outlines")[2]
    assert cells(part, "polyps") == ["0.123", "0.700", "0.900", "–", "0.610", "4.6", "mm", "1", "4", "50%"]
    assert "within 1.5 mm or px" in part


def test_half_of_the_files_missed_is_infinitely_far(summary):
    summary["made"]["tolerance"] = 2.0
    summary["rows"] = [with_more(row(), hd95=None, missed=6)]
    part = results_page(summary).partition("## Overlap and outlines")[2]
    assert cells(part, "polyps")[5] == "∞"


def test_summaries_of_earlier_versions_have_no_empty_columns(summary):
    page = results_page(summary)
    assert "rivial" not in page
    assert "Overlap" not in page


def test_a_comparison_is_a_table(summary):
    summary["comparison"] = [
        {"title": "polyps", "n": 12, "groups": 7, "first": 0.8, "second": 0.75, "mean": 0.05, "low": -0.01,
         "high": 0.11, "better": 5, "worse": 2, "effect": 0.4, "p_value": 0.0312}
    ]  # fmt: skip
    part = results_page(summary).partition("## Compared")[2]
    assert cells(part, "polyps") == [
        "12", "7", "0.800", "0.750", "**+0.050**", "-0.010 to +0.110", "5", "2", "+0.40", "0.031",
    ]  # fmt: skip


def test_a_simulated_user_has_rounds_and_no_limits(summary):
    summary["made"] |= {"robot": {"start": "points", "clicks": 2, "jitter": 5}, "tolerance": 2.0}
    summary["rows"] = [with_more(row(floor=None, aim=None))]
    summary["rounds"] = [
        {"prompt": p, "rows": {"polyps": {"mean": m, "low": 0, "high": 1}}, "median_decode_ms": 20.2}
        for p, m in (("1 click", 0.7), ("2 clicks", 0.8))
    ]
    page = results_page(summary)
    assert cells(page.partition("## Round by round")[2], "polyps") == ["0.700", "0.800"]
    assert "floor" not in page
    assert "at most" not in page
    assert "a click at the pixel of the target that is farthest from its outline" in page


def test_costs_stand_beside_their_limits(summary):
    page = results_page(summary)
    assert cells(page, "median time a picture, file to overlay [ms]") == ["120", "400", "150"]
    assert cells(page, "peak memory of the process [MB]") == ["803", "1200", "–"]
    assert cells(page, "kvasir_seg")[-1] == "2"


def test_the_page_tells_how_it_was_made(summary):
    page = results_page(summary)
    for said in (
        "# Results of toy",
        "`effsam evaluate data -o OUT` on 2030-01-02",
        "seed 3",
        "2 threads",
        "torch 2.9",
        "`ab12`",
    ):
        assert said in page


def test_volumes_have_no_line_about_presence(summary):
    assert "| volumes |" not in results_page(summary)


def test_every_table_is_square(summary):
    page, width = results_page(summary), None
    for line in page.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line
