# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Plots: marks lie where the numbers say, and nothing is fetched."""

import re
from xml.etree import ElementTree

import pytest

from monai_effsam.reports.charts import Strip, reliability_plot, stage_plot, strip_plot


def marks(svg, tag):
    """Elements of a tag; the SVG has to be well-formed."""
    return list(ElementTree.fromstring(svg).iter(tag))


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def test_dots_box_and_median_lie_on_the_axis():
    svg = strip_plot([Strip("polyps", (("a", 0.0), ("b", 0.5), ("c", 1.0)), 0.25)], "Dice")
    dots = [numbers(dot, "cx")[0] for dot in marks(svg, "circle")]
    left, right = dots[0], dots[2]
    assert dots[1] == pytest.approx((left + right) / 2)
    x, width = numbers(marks(svg, "rect")[0], "x", "width")  # quartiles 0.25 and 0.75
    assert (x, width) == pytest.approx((left + 0.25 * (right - left), 0.5 * (right - left)), abs=0.2)
    diamond = float(re.match(r"M([\d.]+) ", marks(svg, "path")[0].get("d"))[1])
    assert diamond == pytest.approx(left + 0.25 * (right - left), abs=0.1)
    assert [dot.find("title").text for dot in marks(svg, "circle")] == ["a: 0.000", "b: 0.500", "c: 1.000"]


def test_equal_values_do_not_hide_each_other_and_stay_in_their_line():
    svg = strip_plot([Strip("x", tuple((f"file {i}", 0.5) for i in range(30)))], "Dice")
    heights = {numbers(dot, "cy")[0] for dot in marks(svg, "circle")}
    assert len(heights) > 20
    assert max(heights) - min(heights) < 20
    assert svg == strip_plot([Strip("x", tuple((f"file {i}", 0.5) for i in range(30)))], "Dice")
    assert not marks(svg, "path")


def test_what_is_told_right_lies_on_the_diagonal():
    bins = [
        {"low": 0.2, "high": 0.3, "n": 5, "said": 0.25, "true": 0.25},
        {"low": 0.9, "high": 1.0, "n": 10, "said": 0.95, "true": 0.5},
    ]
    svg = reliability_plot(bins, "Presence", "told", "so")
    (x0, y0), (x1, y1) = (numbers(dot, "cx", "cy") for dot in marks(svg, "circle"))
    diagonal = next(line for line in marks(svg, "line") if line.get("stroke-dasharray"))
    left, bottom, right, top = numbers(diagonal, "x1", "y1", "x2", "y2")
    assert (x0 - left) / (right - left) == pytest.approx((y0 - bottom) / (top - bottom), abs=1e-3)
    assert ((x1 - left) / (right - left), (y1 - bottom) / (top - bottom)) == pytest.approx(
        (0.95, 0.5), abs=1e-3
    )
    tall = [numbers(bar, "height")[0] for bar in marks(svg, "rect")]
    assert tall[1] == pytest.approx(2 * tall[0], abs=0.2)


def test_stages_are_as_long_as_they_take():
    svg = stage_plot({"a": {"read": 10.0, "encode": 30.0}, "b": {"read": 20.0, "encode": 20.0}})
    bars = [numbers(bar, "width")[0] for bar in marks(svg, "rect")][2:]  # two are the legend
    assert bars[1] == pytest.approx(3 * bars[0], abs=0.2)
    assert bars[0] + bars[1] == pytest.approx(bars[2] + bars[3], abs=0.2)
    assert svg.count("40 ms<") == 2


def test_a_far_longer_bar_is_cut_and_says_so():
    svg = stage_plot({"a": {"x": 10.0}, "b": {"x": 10.0}, "volumes": {"x": 1000.0}})
    bars = [numbers(bar, "width")[0] for bar in marks(svg, "rect")][1:]
    assert bars[2] == pytest.approx(3 * bars[0], abs=0.2)
    assert "1000 ms (cut)" in svg


@pytest.mark.parametrize(
    "svg",
    [
        strip_plot([Strip("<a&b>", (("<c>", 0.5),))], "<d>"),
        reliability_plot([{"low": 0, "high": 0.1, "n": 1, "said": 0.05, "true": 0}], "<a>", "<b>", "<c>"),
        stage_plot({"<a>": {"<b>": 1.0}}),
        strip_plot([], "Dice"),
        stage_plot({}),
    ],
    ids=["strip", "reliability", "stages", "no strips", "no stages"],
)
def test_plots_are_well_formed_escaped_and_fetch_nothing(svg):
    assert ElementTree.fromstring(svg).tag == "svg"
    assert "href" not in svg
    assert "url(" not in svg
