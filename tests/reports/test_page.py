# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The page: self-contained, escaped, complete."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from monai_effsam.errors import DataError
from monai_effsam.reports import Finding, Picture, is_our_page, make_page

GREY = np.full((30, 50, 3), 128, np.uint8)
LINED = np.full((30, 50, 3), (255, 0, 0), np.uint8)
HEAD = Finding("fetal_head", (86, 180, 233), True, 0.987, 0.954, "1234 px")
LESION = Finding("breast_lesion", (204, 121, 167), False, 0.02, 0.4, "0 px")
SHOWN = Picture(
    "head.jpg",
    "Ultrasound",
    "50 x 30 px",
    GREY,
    LINED,
    (HEAD, LESION),
    "Somebody",
    "CC BY 4.0",
    "https://doi.org/1",
)


class Outline(HTMLParser):
    """Which elements open and close, and what the page would fetch."""

    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.images = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.void:
            self.open.append(tag)
        values = dict(attributes)
        self.fetched += [values[key] for key in ("src", "srcset", "data", "poster") if key in values]
        self.fetched += [values["href"]] if tag == "link" else []
        if tag == "img":
            self.images.append(values)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


def test_a_picture_stands_beside_its_overlay():
    outline = read(make_page("Title", ["intro"], [SHOWN]))
    pixels = [
        cv2.imdecode(
            np.frombuffer(base64.b64decode(image["src"].partition(",")[2]), np.uint8), cv2.IMREAD_COLOR
        )
        for image in outline.images
    ]
    assert [p.shape for p in pixels] == [(30, 50, 3)] * 2
    assert np.abs(pixels[0].astype(int) - 128).max() <= 3
    assert pixels[1].mean((0, 1)) == pytest.approx((0, 0, 255), abs=6)  # OpenCV's order: blue, green, red
    assert all(image["alt"] for image in outline.images)


def test_the_page_asks_for_nothing():
    page = make_page("Title", ["intro"], [SHOWN], ["footer"])
    assert all(address.startswith("data:image/jpeg;base64,") for address in read(page).fetched)
    assert not re.search(r"@import|url\(|<script|<iframe", page)


def test_findings_are_told_and_absent_ones_say_nothing_here():
    page = make_page("Title", [], [SHOWN])
    rows = re.findall(r"<tr.*?</tr>", page)[1:]
    assert [
        re.sub(r"<[^>]+>", "|", row).strip("|").replace("||||", "|").replace("||", "|") for row in rows
    ] == [
        "fetal head|0.99|1234 px|0.95",
        "breast lesion|0.02|nothing here",
    ]
    assert "#56b4e9" in rows[0]


def test_credits_name_each_origin_once_with_its_pictures():
    other = Picture(
        "two.jpg", "Ultrasound", credit="Somebody", licence="CC BY 4.0", source="https://doi.org/1"
    )
    items = re.findall(r"<li>.*?</li>", make_page("Title", [], [SHOWN, other]))
    assert len(items) == 1
    for text in ("Somebody", "CC BY 4.0", 'href="https://doi.org/1"', "head.jpg, two.jpg"):
        assert text in items[0]


def test_groups_keep_the_order_of_their_first_picture():
    page = make_page("Title", [], [Picture("1", "MR"), Picture("2", "CT"), Picture("3", "MR")])
    assert re.findall(r"<h[23]>(.*?)</h", page) == ["MR", "1", "3", "CT", "2", "Credits and licences"]


def test_everything_that_is_told_is_escaped():
    bad = '<script>alert("$x")</script>'
    page = make_page(
        bad,
        [bad],
        [Picture(bad, bad, bad, credit=bad, licence=bad, source=bad, remark=bad, error=bad)],
        [bad],
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&quot;$x&quot;)") >= 9
    read(page)


def test_large_pictures_are_shrunk_and_tiny_ones_shown():
    large, tiny = np.zeros((10, 4096, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)
    images = read(make_page("Title", [], [Picture("a", "MR", image=large, overlay=tiny)])).images
    assert [(image["width"], image["height"]) for image in images] == [("1024", "2"), ("1", "1")]


def test_our_page_is_known_again(tmp_path):
    ours, other = tmp_path / "index.html", tmp_path / "other.html"
    ours.write_text(make_page("Title", [], []))
    other.write_bytes(b"<html>\xff mine")
    assert is_our_page(ours)
    assert not is_our_page(other)
    with pytest.raises(DataError, match="cannot be read"):
        is_our_page(tmp_path)
