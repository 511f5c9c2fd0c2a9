# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An app's learning from end to end: scores in the background, labels, a training, the new model in use."""

import time

import cv2
import numpy as np
import pytest

pytest.importorskip("monailabel")

from monai_effsam.labelling.loop import LearningLoop
from monai_effsam.labelling.service import LabellingService
from monai_effsam.labelling.store.folder import FolderStore


@pytest.fixture
def studies(tmp_path):
    """A folder of eight discs, and their labels by id."""
    folder, labels = tmp_path / "studies", {}
    folder.mkdir()
    for n in range(8):
        random = np.random.RandomState(n)
        label = np.zeros((64, 64), np.uint8)
        cv2.circle(label, tuple(int(v) for v in random.randint(20, 44, 2)), 12, 1, -1)
        picture = random.randint(0, 60, (64, 64, 3)).astype(np.uint8)
        picture[label > 0] += 150
        cv2.imwrite(str(folder / f"x{n}.png"), picture)
        cv2.imwrite(str(tmp_path / f"x{n}.png"), label)
        labels[f"x{n}"] = tmp_path / f"x{n}.png"
    return folder, labels


def test_from_scores_to_a_new_model(tiny_model, tiny_promptable, tmp_path, studies):
    folder, labels = studies
    store = FolderStore(folder)
    service = LabellingService(tiny_model, tiny_promptable, modality="endoscopy")
    loop = LearningLoop(service, store, tmp_path / "app", tiny_model, modality="endoscopy", train_every=8)
    loop.start()
    try:
        deadline = time.monotonic() + 120
        while len(loop.table.of(store.list_images())) < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        chooser = loop.strategies()["combined"]
        due = []
        for n in range(8):
            sample = chooser({"client_id": f"u{n % 2}"}, store)
            assert {"id", "disagreement", "entropy"} <= sample.keys()
            info = {"label_info": [{"name": "polyp", "idx": 1}]}
            store.save_label(sample["id"], str(labels[sample["id"]]), "final", info)
            due.append(loop.submitted(sample["id"]))
        assert due == [False] * 7 + [True]
        assert chooser({"client_id": "u0"}, store) is None
        result = loop.trainers()["effsam"]({"epochs": 5, "epoch_length": 8, "rate": 3e-3}, store)
        assert result["published"] == "v0001"
        loop.adopt()  # or the background did already
        assert service.model.path == tmp_path / "app" / "model" / "self_prompting" / "v0001" / "model.pt"
        assert not loop.adopt()
        assert not loop.submitted("x0")
    finally:
        loop.close()
    again = LabellingService(tiny_model, tiny_promptable, modality="endoscopy")
    second = LearningLoop(again, store, tmp_path / "app", tiny_model, modality="endoscopy")
    assert second.adopt()  # after a restart
    assert again.model.path == service.model.path
