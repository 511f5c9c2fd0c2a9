# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Drawings of networks: a row a stage, a box an operation, nothing outside the frame."""

from xml.etree import ElementTree

from monai_effsam.reports import architecture_drawing

NET = {
    "stages": [
        {"stride": 4, "width": 16, "ops": []},
        {"stride": 8, "width": 32, "ops": ["dwsep_k5", "msa_conv_k3"]},
        {"stride": 16, "width": 256, "ops": ["mbconv_k3_e2"] * 6},
    ],
    "stride": 8,
    "size": 256,
    "neck": {"width": 64, "kind": "separable"},
    "decoder": {"width": 256, "depth": 2, "mlp_dim": 512},
}


def marks(svg, tag):
    return list(ElementTree.fromstring(svg).iter(tag))


def test_every_operation_has_its_box_in_its_row():
    boxes = marks(architecture_drawing(NET), "rect")
    titles = [box.find("title").text for box in boxes]
    assert titles == [
        "stem 3x3, 16 channels",
        *("entry 3x3, 32 channels", "dwsep_k5, 32 channels", "msa_conv_k3, 32 channels"),
        "entry 3x3, 256 channels",
        *["mbconv_k3_e2, 256 channels"] * 6,
        *("sum of 2 maps, 64 channels", "separable, 256 channels"),
        *["two-way, 512, 256 channels"] * 2,
    ]
    middles = [round(float(b.get("y")) + float(b.get("height")) / 2) for b in boxes]
    assert len(set(middles)) == 5
    assert middles == sorted(middles)
    assert float(boxes[1].get("height")) < float(boxes[4].get("height"))


def test_nothing_lies_outside():
    svg = architecture_drawing(NET, {"stage16": "1.5 ms"}, alone=True)
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox").split())
    inside = [b for b in marks(svg.replace('xmlns="http://www.w3.org/2000/svg"', ""), "rect") if b.get("x")]
    assert max(float(b.get("x")) + float(b.get("width")) for b in inside) <= width
    assert max(float(b.get("y")) + float(b.get("height")) for b in inside) <= height
    assert "1.5 ms" in svg


def test_families_have_colours_of_their_own():
    boxes = marks(architecture_drawing(NET), "rect")
    assert len({b.get("fill") for b in boxes[2:6]}) == 4  # dwsep, MSA-Conv, entry, mbconv
    assert boxes[0].get("fill") == boxes[1].get("fill") == boxes[-1].get("fill")


def test_stages_of_an_inverted_trunk_tell_what_leads_to_them():
    stages = [{**stage, "entry": f"mbconv_k{3 + 2 * i}_e6"} for i, stage in enumerate(NET["stages"])]
    titles = [b.find("title").text for b in marks(architecture_drawing({**NET, "stages": stages}), "rect")]
    assert titles[0] == f"to mbconv_k3_e6, {stages[0]['width']} channels"
    assert any(title.startswith("to mbconv_k5_e6") for title in titles)
    assert not any("3x3" in title for title in titles)
