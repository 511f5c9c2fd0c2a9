# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Sets and datalists on disk, and what one set's masks say about another's targets."""

import json
from pathlib import Path

import pytest

from monai_effsam.data.sets import Case, known_targets, read_datalist, read_set, read_sets, set_names
from monai_effsam.errors import DataError, UnknownNameError
from monai_effsam.targets import TARGETS, targets_of

TABLE = "set,modality,target,label_value\npolyps,endoscopy,polyp,1\nheads,ultrasound,fetal_head,2\n"
SPLITS = "image,mask,split,case,label_class\nimages/a.png,masks/a.png,train,p1,big\nimages/b.png,masks/b.png,val,,\n"


@pytest.fixture
def root(tmp_path):
    """Two sets of two cases; no picture is read here."""
    (tmp_path / "targets.csv").write_text(TABLE)
    for name in ("polyps", "heads"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "splits.csv").write_text(SPLITS)
    return tmp_path


def case(name, modality, *targets):
    return Case(Path("i"), Path("m"), modality, dict(enumerate(targets, 1)), "g", "train", name)


def known(modality, *cases):
    """Set name -> target -> known."""
    names = [t.name for t in targets_of(modality)]
    return {s: dict(zip(names, row, strict=True)) for s, row in known_targets(cases).items()}


def test_cases_of_a_set(root):
    first, second = read_set(root / "polyps")
    assert first == Case(
        root / "polyps/images/a.png",
        root / "polyps/masks/a.png",
        "endoscopy",
        {1: "polyp"},
        "p1",
        "train",
        "polyps",
        "big",
    )
    assert (second.group, second.split, second.label_class) == ("b", "val", "")


def test_sets_come_in_the_order_asked_and_by_split(root):
    assert set_names(root) == ("polyps", "heads")
    assert [c.set_name for c in read_sets(root)] == ["polyps", "polyps", "heads", "heads"]
    assert [c.set_name for c in read_sets(root, ["heads", "polyps"], "val")] == ["heads", "polyps"]
    assert read_sets(root, ["heads"])[0].values == {2: "fetal_head"}


def test_tables_saved_by_a_spreadsheet_are_read(root):
    (root / "targets.csv").write_text(TABLE, encoding="utf-8-sig")
    assert set_names(root) == ("polyps", "heads")


def test_unknown_set_is_answered_with_the_nearest(root):
    with pytest.raises(UnknownNameError, match="Did you mean 'polyps'"):
        read_sets(root, ["polypes"])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("targets.csv", None, "cannot be read .*Expected a CSV table with set, modality, target"),
        ("targets.csv", "set,modality,target\npolyps,endoscopy,polyp\n", "lacks the columns label_value"),
        ("targets.csv", TABLE.replace("polyps", "other"), "no rows for set 'polyps'.*Add them"),
        ("targets.csv", TABLE.replace("polyp,1", "polyp,one"), "label_value is 'one'.*1..255"),
        ("targets.csv", TABLE.replace("polyp,1", "polyp,0"), "label_value is '0'"),
        ("targets.csv", TABLE.replace("endoscopy", "endoscope"), "Did you mean 'endoscopy'"),
        ("polyps/splits.csv", None, "splits.csv: cannot be read"),
        ("polyps/splits.csv", "image,split\na.png,train\n", "lacks the columns mask"),
        ("polyps/splits.csv", "image,mask,split\na.png,b.png\n", "line 2 is too short"),
    ],
)
def test_a_wrong_table_gets_one_clear_line(root, file, text, message):
    path = root / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises((DataError, UnknownNameError), match=message) as found:
        read_set(root / "polyps")
    assert "\n" not in str(found.value)


def test_datalist(tmp_path):
    path = tmp_path / "list.json"
    entries = {
        "training": [{"image": "a.nii.gz", "label": "b.nii.gz", "case": 7}],
        "validation": [{"image": "c.png", "label": "d.png"}],
    }
    path.write_text(json.dumps(entries))
    first, second = read_datalist(path, "ct", {1: "liver"})
    assert (first.image, first.group, first.split) == (tmp_path / "a.nii.gz", "7", "train")
    assert (second.mask, second.group, second.split, second.set_name) == (
        tmp_path / "d.png",
        "c",
        "val",
        "list",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable JSON datalist"),
        ("[]", "holds no 'training' or 'validation'"),
        ('{"training": [{"image": "a"}]}', "lacks 'image' or 'label'.*relative to the datalist"),
        ('{"training": ["a"]}', "lacks 'image' or 'label'"),
        ('{"training": [{"image": ["a", "b"], "label": "c"}]}', "path of one file"),
    ],
)
def test_a_wrong_datalist_gets_one_clear_line(tmp_path, content, message):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_datalist(tmp_path / "list.json", "ct", {1: "liver"})


# What a set's masks speak of


def test_sets_with_nothing_in_common_say_absent_of_each_others_targets():
    found = known(
        "ultrasound", case("busi", "ultrasound", "breast_lesion"), case("hc18", "ultrasound", "fetal_head")
    )
    assert found["busi"] == found["hc18"] == {"breast_lesion": True, "fetal_head": True}


def test_sets_that_share_a_target_say_nothing_of_the_rest():
    found = known("ct", case("all", "ct", "liver", "spleen", "aorta"), case("few", "ct", "liver", "spleen"))
    assert found["few"]["liver"]
    assert not found["few"]["aorta"]
    assert found["all"]["aorta"]


def test_a_set_apart_says_absent_though_others_share_targets():
    cases = [case("all", "ct", "liver", "spleen"), case("few", "ct", "liver"), case("apart", "ct", "aorta")]
    found = known("ct", *cases)
    assert found["apart"]["spleen"]
    assert found["few"]["aorta"]
    assert not found["few"]["spleen"]


def test_nothing_is_said_of_targets_that_no_set_labels():
    assert known("ct", case("one", "ct", "liver"))["one"] == {
        t.name: t.name == "liver" for t in targets_of("ct")
    }


def test_a_label_in_another_modality_says_nothing_here():
    cases = [case("heart", "mr", "left_ventricle"), case("abdomen", "ct", "liver")]
    row = dict(zip([t.name for t in targets_of("mr")], known_targets(cases)["heart"], strict=True))
    assert row["left_ventricle"]
    assert not row["liver"]


@pytest.mark.data
def test_every_set_of_the_data_folder_is_read(shared):
    cases = read_sets(shared / "data")
    assert len({c.set_name for c in cases}) == 11
    assert {t.modality for t in TARGETS} == {c.modality for c in cases}
    assert all(c.image.is_file() and c.mask.is_file() for c in cases[::50])
    sides = {}
    for c in cases:
        sides.setdefault((c.set_name, c.group), set()).add(c.split)
    assert [g for g, s in sides.items() if len(s) > 1] == []
