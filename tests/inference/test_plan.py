# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What is refused before anything is loaded or written."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from monai_effsam.errors import UnknownNameError, UsageError, WeightsError
from monai_effsam.inference import model_path
from monai_effsam.inference.model_path import default_model_path, told_of
from monai_effsam.inference.plan import Request, make_plan
from monai_effsam.specs import Prompts
from monai_effsam.targets import TARGETS

BOX = Prompts(box=(0, 0, 5, 5))


def request(*inputs: Path, out: Path, **more) -> Request:
    return Request(tuple(inputs), out, **{"modality": "endoscopy", **more})


def test_a_folder_becomes_jobs_in_order_and_nothing_is_written(picture, tmp_path):
    for name in ("b.png", "a.png", "c.png"):
        picture(name)
    plan = make_plan(request(tmp_path / "in", out=tmp_path / "out"))
    assert [job.source.name for job in plan.jobs] == ["a", "b", "c"]
    assert [job.label for job in plan.jobs] == [str(tmp_path / "in" / n) for n in ("a.png", "b.png", "c.png")]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"modality": "endoscpy"}, UnknownNameError, "Did you mean 'endoscopy'"),
        ({"targets": ("polip",)}, UnknownNameError, "Did you mean 'polyp'"),
        ({"targets": ("liver",)}, UsageError, "belongs to ct, mr, not to endoscopy"),
        ({"modality": None}, UsageError, "modality is unknown, expected one of endoscopy, .*--modality"),
        ({"modality": None, "targets": ("livr",)}, UnknownNameError, "target 'livr'"),
        ({"ct_window": "bon"}, UnknownNameError, "CT window 'bon' is unknown"),
        ({"prompts": Prompts(box=(0, 0, 65, 5))}, UsageError, "outside the image.*X0 < X1 <= 64"),
        ({"prompts": Prompts(((3.0, 48.0),), (1,))}, UsageError, "outside the image.*0 <= Y < 48"),
        ({"prompts": BOX, "modality": None}, UsageError, "modality is unknown"),
        ({"prompts": BOX, "modality": "mr"}, UsageError, "Give --target with one of right_ventricle, "),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_request_is_refused(picture, tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        make_plan(request(picture(), out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def looked_at(monkeypatch, bright_router):
    """Files that tell no modality are looked at: dark is CT, bright X-ray, grey unknown."""
    monkeypatch.setattr("monai_effsam.inference.modality.shipped_router", lambda: bright_router)


def test_one_picture_that_looks_like_none_is_refused_at_once(picture, tmp_path, looked_at):
    dull = picture("b.png")
    cv2.imwrite(str(dull), np.full((20, 20), 128, np.uint8))
    with pytest.raises(UsageError, match=r"b\.png: modality is unknown, .*looks like none.*Give --modality"):
        make_plan(request(dull, out=tmp_path / "out", modality=None))
    assert len(make_plan(request(picture(), dull, out=tmp_path / "out", modality=None)).jobs) == 2
    assert len(make_plan(request(picture(), out=tmp_path / "out", modality=None)).jobs) == 1


def test_a_prompt_gets_the_targets_of_what_the_picture_looks_like(picture, tmp_path, looked_at):
    wanted = {"out": tmp_path / "out", "modality": None, "prompts": BOX}
    with pytest.raises(UsageError, match="targets of ct are asked for"):
        make_plan(request(picture(), **wanted))
    assert make_plan(request(picture(), **wanted, targets=("liver",))).jobs


def test_a_prompt_with_one_target_is_fine(picture, tmp_path):
    plan = make_plan(request(picture(), out=tmp_path, modality="mr", targets=("liver",), prompts=BOX))
    assert len(plan.jobs) == 1


def test_a_prompt_wants_one_input(picture, tmp_path):
    with pytest.raises(UsageError, match="2 inputs are given, expected one"):
        make_plan(request(picture("a.png"), picture("b.png"), out=tmp_path / "out", prompts=BOX))


def test_a_prompt_wants_a_2d_image(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    import numpy as np

    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 4), np.int16), np.eye(4)), path)
    with pytest.raises(UsageError, match=r"volume\.nii\.gz: has 4 slices.*Prompt a 2D image"):
        make_plan(request(path, out=tmp_path / "out", modality="mr", targets=("liver",), prompts=BOX))


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.png: no such file"):
        make_plan(request(tmp_path / "nowhere.png", out=tmp_path / "out"))


@pytest.mark.parametrize("name", ["block_mask.png", "block_mask.nii.gz", "block_overlay.png"])
def test_an_output_that_exists_is_refused(picture, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"{name}: exists.*--overwrite"):
        make_plan(request(picture(), out=out))
    assert make_plan(request(picture(), out=out, overwrite=True)).jobs


def test_an_input_is_never_overwritten(picture, tmp_path):
    picture("a.png")
    picture("a_mask.png")
    with pytest.raises(UsageError, match=r"a_mask\.png: is an input and would be replaced"):
        make_plan(request(tmp_path / "in", out=tmp_path / "in", overwrite=True))


def test_an_output_that_is_a_file_is_refused(picture, tmp_path):
    with pytest.raises(UsageError, match="is a file, expected a folder"):
        make_plan(request(picture("a.png"), out=picture("b.png")))


def test_inputs_of_one_name_get_different_outputs(picture, tmp_path):
    jobs = make_plan(request(picture("one/x.png"), picture("two/x.png"), out=tmp_path / "out")).jobs
    assert len({job.source.name for job in jobs}) == 2


def test_resume_passes_over_what_is_finished(picture, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    done, failed, lost = (picture(f"{n}.png") for n in ("done", "failed", "lost"))
    records = [
        {"input": str(p), "mask": f"{p.stem}_mask.png", "overlay": f"{p.stem}_overlay.png"}
        for p in (done, lost)
    ]
    records.append({"input": str(failed), "mask": None, "overlay": None, "error": "bad"})
    (out / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for end in ("mask", "overlay"):
        (out / f"done_{end}.png").touch()
    plan = make_plan(request(tmp_path / "in", out=out, resume=True))
    assert [job.source.name for job in plan.jobs] == ["failed", "lost"]
    assert plan.passed == 1


@pytest.mark.parametrize("place", ["package", "checkout"])
def test_the_model_that_ships_is_found_beside_or_inside_the_package(tmp_path, monkeypatch, place):
    package = tmp_path / "root" / "monai_effsam"
    monkeypatch.setattr(model_path.monai_effsam, "__file__", str(package / "__init__.py"))
    with pytest.raises(WeightsError, match=r"the model that ships is missing\. Name one"):
        default_model_path()
    model = (
        (package if place == "package" else package.parent) / "bundles" / "esp_medsam" / "models" / "model.pt"
    )
    model.parent.mkdir(parents=True)
    model.touch()
    assert default_model_path() == model


def test_a_model_brings_its_own_target_table(tmp_path):
    own = [{**TARGETS[0].to_json(), "name": "ulcer"}]
    (tmp_path / "best.json").write_text(json.dumps({"targets": own}))
    (tmp_path / "model.json").write_text(json.dumps({"targets": own * 2}))
    assert [t.name for t in told_of(tmp_path / "best.pt").targets] == ["ulcer"]
    assert len(told_of(tmp_path).targets) == 2
    assert told_of(tmp_path / "other.pt").targets == TARGETS
