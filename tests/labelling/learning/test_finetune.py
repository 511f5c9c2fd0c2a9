# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Learning from a store: a better model is published, a worse one is not, and it can be stopped."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("monailabel")

from monai_effsam.checkpoints import load_model
from monai_effsam.data.balanced import fitted
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.self_prompting import SelfPromptingStep
from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference.segmenter import Segmenter
from monai_effsam.labelling.learning import finetune
from monai_effsam.labelling.learning.finetune import Learning, fine_tune, learn
from monai_effsam.labelling.learning.labelled import labelled_items, split_items
from monai_effsam.labelling.learning.publication import current, versions
from monai_effsam.labelling.learning.trainer import FineTuning
from monai_effsam.labelling.learning.tuning import CachedSlices, CachedStep, cache_slices, held_dice
from monai_effsam.labelling.store.folder import FolderStore

SHORT = Learning(epochs=2, epoch_length=4, batch=2, rate=2e-3)


def disc(number):
    """A dark picture with a bright disc, and the disc."""
    random = np.random.RandomState(number)
    label = np.zeros((64, 64), np.uint8)
    cv2.circle(label, tuple(int(v) for v in random.randint(20, 44, 2)), int(random.randint(8, 16)), 1, -1)
    picture = random.randint(0, 60, (64, 64, 3)).astype(np.uint8)
    picture[label > 0] += 150
    return picture, label


def slices(count):
    """Labelled slices of discs."""
    return [LabelledSlice(*disc(n), "endoscopy", "endoscopy", f"case{n}", (True,)) for n in range(count)]


@pytest.fixture
def store(tmp_path):
    """A folder of twelve discs, all labelled."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for n in range(12):
        cv2.imwrite(str(folder / f"x{n}.png"), disc(n)[0])
    store = FolderStore(folder)
    for n in range(12):
        cv2.imwrite(str(tmp_path / "sent.png"), disc(n)[1] * 5)
        store.save_label(
            f"x{n}", str(tmp_path / "sent.png"), "final", {"label_info": [{"name": "polyp", "idx": 5}]}
        )
    return store


@pytest.mark.parametrize("controllers", [False, True])
def test_cached_step_is_the_training_step_of_the_whole_network(tiny_model, controllers):
    model = load_model(tiny_model)
    few, index = slices(3), model.network.modalities.index("endoscopy")
    batch = fitted(few, model.specs["endoscopy"], index)
    plain = SelfPromptingStep(model.network, seed=3)
    plain.eval()
    expected = [plain(batch, step) for step in range(4)]
    cached = CachedStep(model.network, controllers=controllers, seed=3)
    rows = list(cache_slices(model, few))
    parts = tuple(torch.stack(part) for part in zip(*(r.parts for r in rows), strict=True))
    batches = CachedSlices(rows, model.network.modalities)
    given = batches.batch(0)
    assert given.label.shape[1:] == batch.label.shape[1:]
    given = type(given)(parts, batch.label, batch.known, index)
    assert torch.equal(torch.stack([r.label for r in rows]), batch.label[:, 0].to(torch.uint8))
    for step in range(4):
        got = cached(given, step)
        assert got.keys() == expected[step].keys()
        for name in got:
            assert got[name].item() == pytest.approx(expected[step][name].item(), rel=5e-3, abs=1e-3), name


def test_only_what_should_learn_learns(tiny_model):
    model = load_model(tiny_model)
    cached = list(cache_slices(model, slices(4)))
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    for controllers in (False, True):
        tuned = fine_tune(model, cached, Learning(epochs=1, epoch_length=3, batch=2, controllers=controllers))
        changed = {k for k, v in tuned.network.state_dict().items() if not torch.equal(v, before[k])}
        assert any(k.startswith("decoder.") for k in changed)
        assert any(k.startswith("encoder.") for k in changed) == controllers
        assert not any(".trunk." in k or k.startswith("encoder.neck") for k in changed)
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_held_dice_is_that_of_the_segmenter(tiny_model):
    model, few = load_model(tiny_model), slices(3)
    segmenter, scores = Segmenter.open(tiny_model, "torch"), []
    for one in few:
        mask = segmenter.decode(segmenter.encode_slices([one.image], "endoscopy")).mask[0] == 1
        label = one.label > 0
        scores.append(2 * (mask & label).sum() / (mask.sum() + label.sum()))
    assert held_dice(model, list(cache_slices(model, few))) == pytest.approx(np.mean(scores), abs=0.02)


def test_held_dice_of_targets_that_are_asked_for(tiny_model):
    model = load_model(tiny_model)
    table = [t.name for t in model.targets if t.modality == "ct"]
    few = [replace(one, modality="ct", known=(True,) * len(table)) for one in slices(2)]
    cached = list(cache_slices(model, few))
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        decode = Segmenter.decode
        patch.setattr(
            Segmenter, "decode", lambda *a, targets: asked.append(targets) or decode(*a, targets=targets)
        )
        held_dice(model, cached, [table[1], "polyp"])
        held_dice(model, cached)
    assert asked == [[table[1]]] * 2 + [table] * 2


def test_learning_publishes_a_better_model_that_runs(tiny_model, store, tmp_path):
    items, models = labelled_items(store.datalist()), tmp_path / "models"
    seen = []
    done = learn(
        items, tiny_model, models, modality="endoscopy",
        learning=Learning(epochs=6, epoch_length=8, batch=4, rate=3e-3),
        progress=lambda epoch, best: not seen.append((epoch, best)),
    )  # fmt: skip
    assert done.after > done.before + 0.05
    assert done.published == current(models)
    assert done.trained + done.held == 12
    assert done.held >= 1
    assert [epoch for epoch, _ in seen][:3] == [0, 1, 2]
    model = load_model(done.published)
    assert model.card["learnt"]["labels"] == {"trained": done.trained, "held": done.held}
    answer = Segmenter.open(done.published, "torch").encode_slices([disc(50)[0]], "endoscopy")
    assert len(answer) == 1


def test_a_worse_model_is_not_published(tiny_model, store, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5, 0.4, 0.3])
    monkeypatch.setattr(finetune, "held_dice", lambda *a: next(scores))
    done = learn(
        labelled_items(store.datalist()), tiny_model, tmp_path / "m", modality="endoscopy", learning=SHORT
    )
    assert (done.published, done.before, done.after) == (None, 0.9, 0.5)
    assert current(tmp_path / "m") is None


def test_the_model_in_use_is_the_one_to_beat(tiny_model, store, tmp_path):
    trainer = FineTuning(tiny_model, tmp_path / "m", modality="endoscopy")
    first = trainer({"epochs": 6, "epoch_length": 8, "rate": 3e-3, "train": ["decoder"]}, store)
    again = trainer({"epochs": 1, "epoch_length": 1, "rate": 1e-6}, store)
    assert first["published"] == "v0001"
    assert again["dice_before"] == pytest.approx(first["dice"], abs=0.02)  # weights are stored in 16 bits
    assert again["published"] is None
    assert trainer.stats()["state"] == "kept"


def test_a_user_may_change_all_that_a_round_has(tiny_model, tmp_path):
    offered = FineTuning(tiny_model, tmp_path / "m").config()
    own = {field.name: field.default for field in fields(Learning) if field.name != "controllers"}
    assert {name: value for name, value in offered.items() if name != "train"} == own


def test_task_tells_where_it_is(tiny_model, store, tmp_path):
    trainer = FineTuning(tiny_model, tmp_path / "m", modality="endoscopy")
    assert trainer.stats() == {}
    assert trainer.info()["config"]["train"] == ["decoder", "controllers and decoder"]
    assert trainer.due(store, 12)
    assert not trainer.due(store, 13)
    assert not trainer.due(store, 0)
    told = []
    trainer._tell, plain = lambda stats: (told.append(dict(stats)), plain(stats)), trainer._tell
    trainer({"model": "x", "epochs": 2, "epoch_length": 2, "gpus": "all", "client_id": "u"}, store)
    assert [t["epoch"] for t in told] == [0, 0, 1, 2, 2]
    assert {"epoch", "total_epochs", "best_metric", "total_time"} <= told[2].keys()
    assert told[-1]["state"] in ("published", "kept")
    assert FineTuning(tiny_model, tmp_path / "m").stats() == told[-1]  # also in another process
    assert not trainer.due(store, 1)


def test_cancelled_in_the_middle(tiny_model, store, tmp_path):
    trainer = FineTuning(tiny_model, tmp_path / "m", modality="endoscopy")
    tell = trainer._tell

    def cancel_after_one(stats):
        tell(stats)
        if stats["epoch"] == 1:
            trainer.cancel()

    trainer._tell = cancel_after_one
    result = trainer({"epochs": 50, "epoch_length": 2, "rate": 3e-3}, store)
    assert result["published"] is None
    assert trainer.stats()["state"] == "cancelled"
    assert versions(tmp_path / "m") == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"train": "everything"}, "expected one of decoder"),
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"epochs": 0}, r"expected 1\.\.200"),
        ({"held_share": 0.9}, r"expected 0\.0\.\.0\.5"),
    ],
)
def test_wrong_options_are_refused(tiny_model, store, tmp_path, request_, message):
    with pytest.raises(UsageError, match=message):
        FineTuning(tiny_model, tmp_path / "m")(request_, store)


def test_labels_that_cannot_be_used_do_not_judge(tiny_model, store, tmp_path):
    every = labelled_items(store.datalist())
    unusable = {item.image_id for item in split_items(every, SHORT.held_share)[1]}
    items = [replace(item, names={5: "needle"}) if item.image_id in unusable else item for item in every]
    done = learn(items, tiny_model, tmp_path / "m", modality="endoscopy", learning=SHORT)
    assert unusable
    assert done.held >= 1
    assert done.trained + done.held == 12 - len(unusable)


def test_without_labels_that_judge_all_train_and_every_result_is_published(tiny_model, store, tmp_path):
    items = [replace(item, group="p") for item in labelled_items(store.datalist())]
    unjudged = replace(SHORT, held_share=0)
    for version in ("v0001", "v0002"):  # the second, alike, is no better
        done = learn(items, tiny_model, tmp_path / "m", modality="endoscopy", learning=unjudged)
        assert (done.trained, done.held) == (12, 0)
        assert done.published == current(tmp_path / "m") == tmp_path / "m" / version / "model.pt"


def test_labels_of_one_patient_are_too_few(tiny_model, store, tmp_path):
    items = [replace(item, group="p") for item in labelled_items(store.datalist())]
    with pytest.raises(DataError, match="12 labels can be used, but all are of one patient"):
        learn(items, tiny_model, tmp_path / "m", modality="endoscopy", learning=SHORT)


def test_too_few_labels_are_told(tiny_model, store, tmp_path):
    for n in range(8):
        store.remove_label(f"x{n}", "final")
    trainer = FineTuning(tiny_model, tmp_path / "m", modality="endoscopy")
    with pytest.raises(DataError, match="4 labels can be used, expected at least 5"):
        trainer({}, store)
    assert trainer.stats()["state"] == "failed"
    assert not trainer.due(store, 1)
