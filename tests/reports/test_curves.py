# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Curves with bands, and dots by name."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from monai_effsam.reports.curves import CurvePanel, CurvePoint, DotPanel, curve_picture, dot_picture

CURVES = {
    "one & two": [CurvePoint(96, 0.5, 0.4, 0.6), CurvePoint(128, 0.7, 0.65, 0.75)],
    "three": [CurvePoint(96, 0.6, 0.6, 0.6), CurvePoint(320, 0.9, 0.9, 0.9)],
}


def texts(svg):
    return [node.text for node in ET.fromstring(svg).iter() if node.tag.endswith("text")]


def circles(svg):
    return [
        (float(c.get("cx")), float(c.get("cy")))
        for c in ET.fromstring(svg).iter()
        if c.tag.endswith("circle")
    ]


def test_curves_name_their_points_and_stay_inside():
    svg = curve_picture([CurvePanel("accuracy", "px", CURVES)], "curves")
    found = texts(svg)
    assert {"accuracy", "px", "one & two", "three", "96", "128", "320", "0.4", "0.9"} <= set(found)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = circles(svg)
    assert x0 == x2 < x1 < x3
    assert y0 > y2 > y1 > y3  # upwards is more
    width, height = (float(v) for v in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    assert all(0 < x < width and 0 < y < height for x, y in circles(svg))


def test_the_band_goes_from_low_to_high():
    svg = curve_picture([CurvePanel("a", "px", {"one": CURVES["one & two"]})], "curves")
    band = re.search(r'<polygon points="([^"]+)"', svg).group(1).split()
    heights = [float(place.split(",")[1]) for place in band]
    (_, y0), (_, y1) = circles(svg)
    assert heights[0] < y0 < heights[3]
    assert heights[1] < y1 < heights[2]


def test_a_power_is_straight_where_both_axes_are_logarithmic():
    points = [CurvePoint(side, side**2, side**2, side**2) for side in (256, 512, 1024, 2048)]
    svg = curve_picture([CurvePanel("time", "px", {"one": points}, log=True)], "curves")
    places = circles(svg)
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(places)]
    assert all(step == pytest.approx(steps[0], abs=0.2) for step in steps)
    assert "1e+07" in texts(svg)


def test_dots_lie_by_their_value_with_the_mean_between():
    svg = dot_picture([DotPanel("accuracy", {"one": [0.5, 0.7], "two": [0.6]})], "dots")
    (a, _), (b, y), (c, low) = circles(svg)
    assert a < c < b
    assert c == pytest.approx((a + b) / 2, abs=0.2)
    assert y < low
    assert {"one", "two", "accuracy", "0.5", "0.7"} <= set(texts(svg))


def test_one_value_alone_has_an_axis():
    assert circles(dot_picture([DotPanel("accuracy", {"one": [0.5]})], "dots"))
