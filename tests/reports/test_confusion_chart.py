# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The confusion matrix as a picture: a cell a number, shaded by its share of the row."""

from xml.etree import ElementTree

from monai_effsam.reports.confusion_chart import confusion_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_cells_show_counts_and_rows_without_pictures_are_left_out():
    root = ElementTree.fromstring(
        confusion_chart([[8, 2, 0], [0, 0, 0], [1, 0, 3]], ["ct", "mr", "<odd>"], "A")
    )
    cells = root.findall(f"{SVG}g")
    told = [cell.find(f"{SVG}title").text for cell in cells]
    assert len(cells) == 6
    assert told[1] == "ct called mr: 2 of 10"
    assert told[3] == "<odd> called ct: 1 of 4"
    shades = [float(cell.find(f"{SVG}rect").get("fill-opacity")) for cell in cells]
    assert shades == [0.8, 0.2, 0.0, 0.25, 0.0, 0.75]
    words = [cell.findtext(f"{SVG}text") for cell in cells]
    assert words == ["8", "2", None, "1", None, "3"]
    assert root.get("aria-label") == "A"
