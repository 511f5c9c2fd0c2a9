# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Several networks that do what they are told, more or less, in front of the same simulated user."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monai_effsam.data.sets import read_sets
from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.evaluation import ModelsSettings, compare_models, ellipse_in
from monai_effsam.evaluation.models_answers import look_at
from monai_effsam.inference import Segmenter
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.metrics import dice_score
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import TARGETS, targets_of

SIDE = 32
ELLIPSE = math.pi / 4 * 2 / (math.pi / 4 + 1)  # Dice of an ellipse and the box around it
TIGHT = ModelsSettings(jitter=(0,))


class Filler(torch.nn.Module):
    """Fills the left share of a box; of a point it makes a square of 8 pixels around it. Counts and remembers."""

    def __init__(self, share=1.0, breaks_after=math.inf):
        super().__init__()
        self.modalities = tuple(dict.fromkeys(t.modality for t in TARGETS))
        self.weight = torch.nn.Parameter(torch.ones(7))
        self.share, self.breaks_after = share, breaks_after
        self.encoded, self.boxes = 0, []

    def encode(self, image, modality):
        self.encoded += 1
        if self.encoded > self.breaks_after:
            raise KeyboardInterrupt
        return image

    def decode(self, encoded, modality, points=None, labels=None, boxes=None):
        count = len(targets_of(self.modalities[modality]))
        y, x = torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 2, indexing="ij")
        if boxes is not None:
            self.boxes.append(tuple(boxes[0].tolist()))
        else:
            boxes = torch.cat([points[0, 0] - 4, points[0, 0] + 4])[None]
        x0, y0, x1, y1 = boxes[0]
        mask = (x > x0) & (x < x0 + (x1 - x0) * self.share) & (y > y0) & (y < y1)
        told = torch.full((1, count), 0.5)
        logits = torch.where(mask, 9.0, -9.0).expand(1, count, SIDE, SIDE)
        return SimpleNamespace(mask_logits=logits, quality=told, presence=told)


@pytest.fixture
def opener(tmp_path):
    """A function: network and checksum -> what opens the model."""

    def make(network, sha256="aa", targets=TARGETS, promptable=False):
        model = SimpleNamespace(
            network=network,
            specs=dict.fromkeys(network.modalities, ImageSpec(SIDE, mean=(0, 0, 0), std=(1, 1, 1))),
            targets=targets,
            card={"sha256": sha256, "family": "sam" if promptable else None},
            path=tmp_path / "model.pt",
            promptable=promptable,
        )
        return lambda: Segmenter(TorchRuntime(model))

    return make


@pytest.fixture
def compare(data_root, opener, tmp_path):
    """Compares networks by name over some sets, into one folder."""

    def run(networks, sets=("busi",), settings=TIGHT, **more):
        openers = {
            name: n if callable(n) and not isinstance(n, Filler) else opener(n)
            for name, n in networks.items()
        }
        return compare_models(
            read_sets(data_root, sets), openers, tmp_path / "out", settings=settings, **more
        )

    return run


def box_of(summary, number=0):
    """Mean of the only set, by model, and what is trivial."""
    entry = summary["prompts"][number]
    return {m["name"]: m["mean_of_sets"] for m in entry["models"]}, entry["trivial"]["mean_of_sets"]


def test_scores_gains_and_differences_are_those_on_paper(compare):
    summary = compare({"half": Filler(0.5), "all": Filler(), "quarter": Filler(0.25)})
    means, trivial = box_of(summary)
    assert means == {
        "half": pytest.approx(2 / 3, abs=1e-4),
        "all": 1,
        "quarter": pytest.approx(0.4, abs=1e-4),
    }
    assert trivial == pytest.approx(ELLIPSE, abs=0.01)
    assert [m["gain"] for m in summary["prompts"][0]["models"]] == pytest.approx(
        [2 / 3 - trivial, 1 - trivial, 0.4 - trivial], abs=2e-4
    )
    assert summary["sets"]["busi"] == {"pictures": 4, "patients": 3, "targets": 1, "scores": 4}
    pairs = {(p["first"], p["second"]): p for p in summary["prompts"][0]["pairs"]}
    assert list(pairs) == [("all", "half"), ("quarter", "half"), ("quarter", "all")]
    test = pairs["all", "half"]["pictures"]
    assert (test["mean"], test["better"], test["worse"], test["groups"]) == (
        pytest.approx(1 / 3, abs=1e-4),
        4,
        0,
        4,
    )
    assert test["p_value"] == 2 / 2**4  # four pictures of one sign, two sides
    assert test["p_holm"] == 3 * 2 / 2**4  # of three pairs
    assert pairs["all", "half"]["patients"]["p_value"] == 2 / 2**3
    assert pairs["quarter", "all"]["pictures"]["mean"] == pytest.approx(-0.6, abs=1e-4)


def test_every_model_gets_the_very_same_boxes(compare, read_csv, tmp_path):
    one, two = Filler(), Filler(0.5)
    compare({"one": one, "two": two}, settings=ModelsSettings(jitter=(0, 100)))
    assert one.boxes == two.boxes
    assert len(set(one.boxes)) > 4  # those that stray, too
    rows = read_csv(tmp_path / "out" / "images.csv")
    trivial = {
        name: [(r["prompt"], r["trivial"]) for r in rows if r["model"] == name] for name in ("one", "two")
    }
    assert trivial["one"] == trivial["two"]


def test_the_ellipse_stands_in_the_very_box_that_was_prompted(compare, read_csv, tmp_path):
    network = Filler()
    compare({"one": network}, settings=ModelsSettings(jitter=(200,)))
    label = np.zeros((SIDE, SIDE), bool)
    label[8:16, 8:24] = True
    rows = [r for r in read_csv(tmp_path / "out" / "images.csv") if r["prompt"] == "box jitter 200"]
    number = next(i for i, r in enumerate(rows) if r["image"] == "images/exact.png")
    ellipse = ellipse_in(network.boxes[number], (SIDE, SIDE))
    assert float(rows[number]["trivial"]) == pytest.approx(dice_score(ellipse, label), abs=1e-5)


def test_boxes_that_stray_cost_the_obedient_and_the_ellipse(compare):
    summary = compare({"all": Filler()}, settings=ModelsSettings(jitter=(0, 100)))
    (tight, ellipse), (loose, shifted) = box_of(summary, 0), box_of(summary, 1)
    assert loose["all"] < 0.97 * tight["all"]
    assert shifted < ellipse
    assert [entry["prompt"] for entry in summary["prompts"]] == ["box", "box jitter 100", "point"]


def test_a_point_is_the_middle_and_stands_beside_the_constant_mask(compare, read_csv, tmp_path):
    compare({"all": Filler()})
    rows = {r["image"]: r for r in read_csv(tmp_path / "out" / "images.csv") if r["prompt"] == "point"}
    exact = rows["images/exact.png"]  # 8 rows and 16 columns, of which the square covers 7 x 7
    assert float(exact["dice"]) == pytest.approx(2 * 49 / (49 + 128), abs=1e-5)
    assert float(exact["trivial"]) > 0.95  # the only training mask is the same


def test_pictures_without_a_target_are_not_asked_and_volumes_count_as_one(compare, read_csv, tmp_path):
    compare({"all": Filler()}, sets=("busi", "ours"))
    rows = [r for r in read_csv(tmp_path / "out" / "images.csv") if r["prompt"] == "box"]
    names = {r["image"].removeprefix("images/") for r in rows}
    assert names == {"exact.png", "half.png", "missed.png", "foreign.png", "ours/image.nii.gz"}
    volume = next(r for r in rows if r["set_name"] == "ours")
    assert (volume["slices"], float(volume["dice"]), volume["trivial"] > "0.8") == ("2", 1, True)


def test_sets_count_alike_whatever_they_hold(compare):
    summary = compare({"half": Filler(0.5)}, sets=("busi", "ours"))
    own = summary["prompts"][0]["models"][0]
    assert (own["sets"]["busi"]["n"], own["sets"]["ours"]["n"]) == (4, 1)
    assert own["mean_of_sets"] == pytest.approx(
        (own["sets"]["busi"]["mean"] + own["sets"]["ours"]["mean"]) / 2, abs=1e-4
    )


def test_resuming_answers_nothing_twice(compare, tmp_path):
    compare({"one": Filler()})
    before = (tmp_path / "out" / "images.csv").read_bytes()
    again = Filler()
    summary = compare({"one": again}, resume=True)
    assert again.encoded == 0
    assert (tmp_path / "out" / "images.csv").read_bytes() == before
    one, two = Filler(), Filler(0.5)
    both = compare({"one": one, "two": two}, resume=True)
    assert (one.encoded, two.encoded) == (4, 8)  # both are timed side by side
    assert both["prompts"][0]["models"][0] == summary["prompts"][0]["models"][0]


def test_another_prompt_seed_or_weight_is_answered_anew(compare, opener, read_csv, tmp_path):
    compare({"one": Filler()})
    strayed, reseeded, retrained = Filler(), Filler(), Filler()
    compare({"one": strayed}, settings=ModelsSettings(jitter=(0, 30)), resume=True)
    assert len(strayed.boxes) == 4  # the tight ones are kept
    summary = compare({"one": reseeded}, settings=ModelsSettings(jitter=(0, 30), seed=1), resume=True)
    assert len(reseeded.boxes) == 8
    assert (
        summary["prompts"][1]["models"][0]["sets"]["busi"]["n"] == 4
    )  # those of the other seed do not count
    compare({"one": opener(retrained, "bb")}, settings=ModelsSettings(jitter=(0, 30)), resume=True)
    assert len(retrained.boxes) == 8 + 4  # four are timed
    assert {row["sha256"] for row in read_csv(tmp_path / "out" / "images.csv")} == {"bb"}


def test_kept_lines_of_other_sets_prompts_and_models_stay_but_do_not_count(compare, read_csv, tmp_path):
    alone = compare({"two": Filler(0.5)}, ("busi",), overwrite=True)
    compare(
        {"one": Filler(), "two": Filler(0.5)}, ("ours", "busi"), ModelsSettings(jitter=(0, 50)), resume=True
    )
    everything = (tmp_path / "out" / "images.csv").read_bytes()
    again = compare({"two": Filler(0.5)}, ("busi",), resume=True)
    assert {key: again[key] for key in ("sets", "prompts")} == {
        key: alone[key] for key in ("sets", "prompts")
    }
    assert (tmp_path / "out" / "images.csv").read_bytes() == everything


def test_the_order_of_sets_is_that_of_the_request_not_of_the_file(compare):
    compare({"one": Filler()}, ("busi",))
    assert list(compare({"one": Filler()}, ("ours", "busi"), resume=True)["sets"]) == ["ours", "busi"]


def test_an_interrupted_run_goes_on_where_it_was(compare, read_csv, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        compare({"one": Filler(breaks_after=2)})
    rows = read_csv(tmp_path / "out" / "images.csv")
    assert len({r["image"] for r in rows}) == 2
    assert not (tmp_path / "out" / "summary.json").exists()
    rest = Filler()
    summary = compare({"one": rest}, resume=True)
    assert len(rest.boxes) - 4 == 2  # four are timed
    assert summary["sets"]["busi"]["pictures"] == 4


def test_a_table_made_of_kept_lines_is_the_same(compare, tmp_path):
    networks = {"one": Filler(), "two": Filler(0.5)}
    fresh = compare(networks, settings=ModelsSettings())
    kept = compare(networks, settings=ModelsSettings(), resume=True)
    assert kept == fresh
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == fresh


def test_the_model_is_told_with_its_checksum_size_and_times(compare, opener):
    (told,) = compare({"one": opener(Filler(), "cafe")})["models"]
    assert (told["model"], told["sha256"], told["parameters"], told["runtime"]) == ("one", "cafe", 7, "torch")
    assert told["encode_ms"] >= 0 < told["decode_ms"]
    assert "images_s" not in told


def test_the_page_has_every_prompt_set_model_and_pair(compare, tmp_path):
    settings = ModelsSettings(jitter=(0, 10, 20), notes="What *cannot* be compared: volumes.")
    compare({"one": Filler(), "two": Filler(0.5)}, ("busi", "ours"), settings, command="effsam compare DATA")
    page = (tmp_path / "out" / "table.md").read_text()
    for heading in ("Tight box", "Box, jitter 10 px", "Box, jitter 20 px", "One point"):
        part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
        for line in (
            "| Dice, mean ± sd | busi (n 4) | ours (n 1) | mean of the sets | gain |",
            "| mAP / AP50 / AP75 / mean IoU | busi | ours |",
            "| two − one |",
        ):
            assert line in part
        assert part.count("\n| one |") == part.count("\n| two |") == 3
    assert page.count("| ellipse in the box |") == 6
    assert page.count("| constant mask |") == 2
    assert "## Notes\n\nWhat *cannot* be compared: volumes." in page
    assert "`effsam compare DATA`" in page
    assert "](table.svg)" in page
    assert "box, jitter 10 px" in (tmp_path / "out" / "table.svg").read_text()


def test_an_existing_table_is_kept_unless_told(compare, tmp_path):
    compare({"one": Filler()})
    with pytest.raises(UsageError, match=r"images\.csv: exists, expected a new file\. Add --resume"):
        compare({"one": Filler()})
    assert box_of(compare({"one": Filler(0.5)}, overwrite=True))[0]["one"] < 0.7


def test_another_table_is_not_taken_for_one(compare, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images.csv").write_text("set_name,image,dice\nbusi,a,0.5\n")
    with pytest.raises(DataError, match=r"images\.csv: is no table of models"):
        compare({"one": Filler()}, resume=True)


def test_what_nobody_can_answer_is_refused_before_anything_is_asked(compare, opener, tmp_path):
    network = Filler()
    without = tuple(t for t in TARGETS if t.name != "breast_lesion")
    with pytest.raises(UnknownNameError, match="target 'breast_lesion' is unknown"):
        compare({"one": network, "two": opener(Filler(), targets=without)})
    with pytest.raises(UnknownNameError, match=r"reference 'tow' is unknown.*Did you mean 'two'"):
        compare({"one": network, "two": network}, settings=ModelsSettings(reference="tow"))
    with pytest.raises(UsageError, match="no file of the split 'test'"):
        compare({"one": network}, settings=ModelsSettings(split="test"))
    with pytest.raises(UsageError, match="no model given"):
        compare({})
    assert network.encoded == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("jitter", "said"),
    [
        ((), "jitter is empty"),
        ((5, 5), "jitter is 5, 5, expected one or more different"),
        ((-1,), "jitter is -1"),
    ],
)
def test_jitter_that_asks_nothing_new_is_refused(jitter, said):
    with pytest.raises(UsageError, match=said):
        ModelsSettings(jitter=jitter)


def test_labels_without_a_target_leave_nothing_behind(compare, data_root, tmp_path):
    table = data_root / "busi" / "splits.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(line for line in lines if "normal" in line or line.startswith("image,")) + "\n"
    )
    with pytest.raises(UsageError, match="no label holds a target"):
        compare({"one": Filler()})
    assert not (tmp_path / "out").exists()


def test_throughput_is_measured_where_asked_and_kept_with_the_answers(compare, monkeypatch):
    batches = ModelsSettings(jitter=(0,), batches=(1, 3))
    (told,) = compare({"one": Filler()}, settings=batches)["models"]
    assert list(told["images_s"]) == ["1", "3"]
    assert min(told["images_s"].values()) > 0
    (kept,) = compare({"one": Filler()}, settings=batches, resume=True)["models"]
    assert kept == told
    (other,) = compare({"one": Filler()}, settings=ModelsSettings(jitter=(0,), batches=(2,)), resume=True)[
        "models"
    ]
    assert list(other["images_s"]) == ["2"]


def test_a_table_of_a_former_version_is_not_gone_on_with(compare, tmp_path):
    compare({"one": Filler()})
    file = tmp_path / "out" / "images.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    gone = rows[0].index("quality")
    file.write_text("\n".join(",".join(row[:gone] + row[gone + 1 :]) for row in rows))
    with pytest.raises(DataError, match="quality"):
        compare({"one": Filler()}, resume=True)


def test_a_model_in_8_bits_is_another_one_than_that_of_the_same_weights(opener):
    segmenter = opener(Filler())()
    full = look_at("one", segmenter).run
    segmenter.model.card["int8"] = {"dice": 0.99}
    assert look_at("one", segmenter).run == full._replace(runtime="torch int8")
