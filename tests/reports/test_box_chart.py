# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Boxes lie where the numbers say, in a file that stands alone."""

from xml.etree import ElementTree

import pytest

from monai_effsam.reports import Box, box_chart

SVG = "{http://www.w3.org/2000/svg}"
BOX = Box(low=0.0, lower=0.25, median=0.5, upper=0.75, high=1.0, mean=0.4)


def marks(svg, tag):
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def test_whiskers_box_median_and_mean_lie_on_the_axis():
    svg = box_chart({"polyps": {"a": BOX}}, {"polyps": 0.25}, "Dice", "a title")
    whisker, median = marks(svg, "line")[-2:]
    left, right = numbers(whisker, "x1", "x2")
    at = lambda share: pytest.approx(left + share * (right - left), abs=0.2)  # noqa: E731
    ground, box = marks(svg, "rect")
    assert ground.get("fill") == "#fff"
    x, width = numbers(box, "x", "width")
    assert (x, x + width) == (at(0.25), at(0.75))
    assert numbers(median, "x1", "x2") == [at(0.5), at(0.5)]
    assert numbers(marks(svg, "circle")[0], "cx") == [at(0.4)]
    assert float(marks(svg, "path")[0].get("d")[1:].split()[0]) == at(0.25)
    grid = [numbers(mark, "x1")[0] for mark in marks(svg, "line")[:6]]
    assert (grid[0], grid[-1]) == (left, right)


def test_a_model_has_one_colour_and_a_row_of_its_own_in_every_set():
    svg = box_chart({"s": {"a": BOX, "b": BOX}, "t": {"b": BOX}}, {}, "Dice", "title")
    first, second, third = marks(svg, "rect")[1:]
    assert first.get("fill") != second.get("fill") == third.get("fill")
    assert len({rect.get("y") for rect in (first, second, third)}) == 3
    assert not marks(svg, "path")


def test_names_are_escaped_and_nothing_is_fetched():
    svg = box_chart({"<s>": {"<a&b>": BOX}}, {"<s>": 0.5}, "<d>", "<t>")
    words = [mark.text for mark in marks(svg, "text")]
    assert {"<s>", "<a&b>", "<d>"} <= set(words)
    assert "href" not in svg
    assert "url(" not in svg
