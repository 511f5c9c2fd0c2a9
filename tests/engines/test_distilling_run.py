# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Parts of a whole distillation that no command shows: what filling and timing touch, and what they leave alone."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_effsam.data.pictures import PictureFile, Pictures
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines import distilling_run
from monai_effsam.engines.distilling_recipe import DistillationRecipe, stage_names
from monai_effsam.engines.distilling_run import Distillation
from monai_effsam.engines.distilling_time import epoch_seconds, form_costs
from monai_effsam.engines.students import Student, build_student
from monai_effsam.engines.teacher import Teacher, load_teacher
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.specs import ImageSpec

pytest.importorskip("lmdb")

STUDENT = Student({"name": "timm_pyramid", "model": "mobilenetv3_small_050"}, ImageSpec(64))


def pictures(count):
    def reader(number):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        return lambda: [LabelledSlice(pixels, np.zeros((40, 60), np.uint8), "", "", "", ())]

    return Pictures([PictureFile(None, f"g{n}", reader(n)) for n in range(count)])


@pytest.fixture
def run(tmp_path):
    teacher = load_teacher("random")
    recipe = DistillationRecipe(
        teacher.sha256, dict(STUDENT.encoder), STUDENT.spec.to_json(), views=3, batch=2, epochs={"encoder": 1}
    )
    network, options = build_student(STUDENT, teacher.network)
    whole = Distillation(recipe, network, options, STUDENT, teacher, pictures(9), None, tmp_path / "run")
    yield whole
    if teacher.cache is not None:
        teacher.cache.close()


def test_the_teacher_looks_at_every_view_that_is_shown_and_no_other(run, tmp_path):
    cache = run.teacher.open_cache(tmp_path / "cache")
    filled = run.fill()
    assert filled == (3 * len(run.train) + len(run.watched), 0)
    run.recipe = replace(run.recipe, epochs={"encoder": 4})
    run.run()
    assert (cache.misses, len(cache)) == (0, filled.computed)
    assert cache.hits > 0


def test_timing_tells_what_the_cache_saves_and_trains_nothing(run, tmp_path, monkeypatch):
    look = Teacher._run
    monkeypatch.setattr(Teacher, "_run", lambda self, views: time.sleep(0.5) or look(self, views))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    assert epoch_seconds(run, 1).keys() == {"uncached"}
    cache = run.teacher.open_cache(tmp_path / "cache")
    run.fill()
    found = epoch_seconds(run, 2)
    assert found["uncached"] - found["cached"] > 0.5 * len(run.batches(run.teacher)) * 0.8
    assert found["gain"] == pytest.approx(found["uncached"] / found["cached"])
    assert run.teacher.cache is cache
    assert all(torch.equal(v, before[k]) for k, v in run.network.state_dict().items())


def test_the_compact_form_is_half_as_large_and_less_exact(run):
    costs = form_costs(run, 2)
    assert costs["compact"].bytes == pytest.approx(costs["half"].bytes / 2, rel=0.1)  # and a scale a channel
    assert 0 < costs["half"].error < 1e-3 < costs["compact"].error < 0.05


def test_training_from_the_cache_ends_at_the_loss_of_training_without(run, tmp_path):
    run.recipe = replace(run.recipe, epochs={"encoder": 3})
    cached = replace(run.recipe)
    network, _ = build_student(STUDENT, run.teacher.network)
    run.run()
    run.teacher.open_cache(tmp_path / "cache")
    other = Distillation(
        cached, network, run.options, STUDENT, run.teacher, run.pictures, None, tmp_path / "cached"
    )
    other.fill()
    other.run()
    without, within = (
        [json.loads(line)["loss"] for line in (r.out / "encoder" / "losses.jsonl").read_text().splitlines()]
        for r in (run, other)
    )
    assert within == pytest.approx(without, rel=2e-3)  # 16-bit floats
    assert within[-1] < 0.95 * within[0]


def test_what_is_learnt_is_what_is_watched(run, tmp_path):
    recipe = replace(run.recipe, embedding=0.0, logits=1.0, saliency="token")
    other = Distillation(
        recipe, run.network, run.options, STUDENT, run.teacher, run.pictures, None, tmp_path / "other"
    )
    other.run()
    rows = [json.loads(x) for x in (other.out / "encoder" / "held_out.jsonl").read_text().splitlines()]
    wanted = [row["logits"] + 0.25 * row["saliency"] for row in rows]
    assert [row["loss"] for row in rows] == pytest.approx(wanted, rel=1e-3)
    assert len(rows) == 2


def test_the_best_epoch_is_that_of_the_smallest_loss_whatever_the_embeddings_do(run, monkeypatch):
    scripted = iter([(3.0, 1.0), (1.0, 2.0), (2.0, 3.0)])
    monkeypatch.setattr(
        distilling_run,
        "held_out_errors",
        lambda *_, **__: dict(zip(("loss", "mse"), next(scripted), strict=True)),
    )
    run.recipe = replace(run.recipe, epochs={"encoder": 2})
    run.run()
    assert json.loads((run.out / "model.json").read_text())["stages"]["encoder"]["best_epoch"] == 1


def test_a_stage_without_terms_is_refused(run):
    with pytest.raises(UsageError, match="every term has weight 0"):
        replace(run.recipe, embedding=0.0, perceptual="none", saliency="token", saliency_weight=0.0)


def test_the_same_options_give_the_same_student(run, tmp_path):
    first = run.run()
    network, _ = build_student(STUDENT, run.teacher.network)
    again = Distillation(
        run.recipe, network, run.options, STUDENT, run.teacher, run.pictures, None, tmp_path / "again"
    ).run()
    a, b = (torch.load(path, weights_only=True) for path in (first, again))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_another_recipe_does_not_resume_and_anew_forgets_the_old_one(run):
    run.run()
    file = run.out / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text())))  # the same recipe, written by another hand
    Distillation(
        run.recipe, run.network, run.options, STUDENT, run.teacher, run.pictures, None, run.out, resume=True
    ).run()
    changed = Distillation(
        replace(run.recipe, views=2),
        run.network,
        run.options,
        STUDENT,
        run.teacher,
        run.pictures,
        None,
        run.out,
        resume=True,
    )
    with pytest.raises(UsageError, match=r"is another recipe \(other views\)"):
        changed.run()
    changed.resume = False
    changed.run()
    assert '"views": 2' in (run.out / "recipe.json").read_text()


def test_stages_run_in_their_order():
    assert stage_names("decoder, encoder") == ("encoder", "decoder")
    with pytest.raises(UnknownNameError, match="Did you mean 'joint'"):
        stage_names("encoder,jont")
    with pytest.raises(UsageError, match="expected some of encoder, decoder, joint"):
        stage_names(",")


def test_a_run_begun_anew_leaves_nothing_that_a_later_resume_could_take_for_its_own(run, monkeypatch):
    run.run()
    assert (run.out / "encoder" / "done.json").is_file()

    def cut(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_effsam.engines.distilling_run.train_stage", cut)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not (run.out / "encoder" / "done.json").exists()
    assert not (run.out / "encoder" / "checkpoint.pt").exists()
