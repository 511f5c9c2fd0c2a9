# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Many users at once: each gets what he would get alone, each slice is encoded once, models change under way."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest

pytest.importorskip("monailabel")

from monai_effsam.errors import EffsamError
from monai_effsam.inference import Segmenter
from monai_effsam.inference.embedding_cache import EmbeddingCache
from monai_effsam.labelling.ahead import WorkAhead
from monai_effsam.labelling.models import ServedModel
from monai_effsam.labelling.requests import Clicks
from monai_effsam.labelling.service import LabellingService
from monai_effsam.labelling.tasks import inference_tasks
from tests.labelling.service.conftest import BrightPiece, GreyBands


def answered(task, request) -> tuple[bytes, dict]:
    path, told = task(request)
    content = Path(path).read_bytes()
    Path(path).unlink()
    return content, {key: told[key] for key in ("label_names", "quality")}


def at_once(tasks, requests, workers: int = 8) -> list:
    """All requests from so many threads, begun together."""
    gate = threading.Barrier(workers)

    def work(number: int) -> list:
        gate.wait()
        order = requests[number:] + requests[:number]  # everybody another one first
        return [(str((name, request)), answered(tasks[name], request)) for name, request in order]

    with ThreadPoolExecutor(workers) as pool:
        return [pair for found in pool.map(work, range(workers)) for pair in found]


def check_alone_and_at_once(make, requests) -> None:
    """Answers of a fresh service to each request by itself are those to all of them at once."""
    alone = {}
    for name, request in requests:
        service = make()
        alone[str((name, request))] = answered(inference_tasks(service)[name], request)
        service.close()
    service = make()
    for asked, found in at_once(inference_tasks(service), requests):
        assert found == alone[asked]
    service.close()
    assert len({content for content, _ in alone.values()}) > len(requests) // 2  # they do differ


def test_answers_at_once_are_those_of_single_use(volume):
    one, other = volume("axial", name="a.nii.gz"), volume("sagittal", name="b.nii.gz")
    clicks = ([[13, 30, 8]], [[38, 46, 8]], [[12, 28, 9]])
    requests = [
        (name, {"image": str(path), "foreground": points, "label": label, "slice": points[0][2]})
        for path in (one, other)
        for name in ("prompted_2d", "prompted_3d")
        for points, label in zip(clicks, "xyz", strict=True)
    ]
    requests += [("automatic", {"image": str(path)}) for path in (one, other)]
    check_alone_and_at_once(
        lambda: LabellingService(Segmenter(GreyBands()), Segmenter(BrightPiece()), modality="ct"), requests
    )


@pytest.mark.slow
def test_answers_of_the_shipped_models_at_once_are_those_of_single_use(root, tmp_path):
    pictures = sorted((root / "demo" / "images").rglob("*.[jp][pn]g"))[:2]
    requests = []
    for path in pictures:
        height, width = cv2.imread(str(path)).shape[:2]
        for x, y in ((0.4, 0.5), (0.6, 0.4)):
            points = [[int(x * width), int(y * height), 0]]
            requests.append(("prompted_2d", {"image": str(path), "foreground": points, "label": f"{x}"}))
        box = [width // 4, width // 2, height // 4, height // 2, 0, 0]
        requests.append(("prompted_2d", {"image": str(path), "roi": box}))
        requests.append(("automatic", {"image": str(path)}))
    made = LabellingService(modality="endoscopy")

    def make() -> LabellingService:
        models = (made.model.segmenter, made.prompted_model.segmenter)
        return LabellingService(
            *models, modality="endoscopy", cache=EmbeddingCache(tmp_path / str(time.time()))
        )

    check_alone_and_at_once(make, requests)


class Lasting(BrightPiece):
    """Encodes long enough for others to come."""

    def encode(self, images, modality):
        time.sleep(0.1)
        return super().encode(images, modality)


def test_a_slice_that_many_ask_for_is_encoded_once(volume):
    model = Lasting()
    service = LabellingService(Segmenter(GreyBands()), Segmenter(model), modality="ct")
    request = {"image": str(volume()), "foreground": [[13, 30, 8]], "slice": 8}
    at_once(inference_tasks(service), [("prompted_2d", request)] * 8)
    assert model.encoded == 1
    service.close()


def test_encodings_outlive_the_server(volume, tmp_path):
    path = volume()
    for expected in (1, 0):
        model = BrightPiece()
        cache = EmbeddingCache(tmp_path / "cache")
        service = LabellingService(Segmenter(GreyBands()), Segmenter(model), modality="ct", cache=cache)
        service.prompted_2d(path, Clicks(foreground=((13, 30, 8),)))
        assert model.encoded == expected
        service.close()


def test_the_next_image_is_encoded_before_it_is_asked_for(volume):
    bands, bright = GreyBands(), BrightPiece()
    service = LabellingService(Segmenter(bands), Segmenter(bright), modality="ct")
    path = volume()
    service.prepare(path)
    assert service.prepared(10)
    assert (bands.encoded, bright.encoded) == (6, 6)  # equal slices are found by their content
    service.automatic(path)
    service.prompted_3d(path, Clicks(foreground=((13, 30, 8),)))
    assert (bands.encoded, bright.encoded) == (6, 6)
    service.prepare(path.with_name("none.nii.gz"))  # nobody is told: nobody asked
    assert service.prepared(10)
    service.close()


def test_work_ahead_steps_back_for_requests_and_is_replaced_by_newer_work():
    busy, done = threading.Event(), []
    ahead = WorkAhead(busy.is_set)

    def job(name: str, count: int):
        def steps():
            for number in range(count):
                yield
                done.append((name, number))

        return steps

    busy.set()
    ahead.start(job("old", 3))
    time.sleep(0.2)
    assert done == []
    assert not ahead.wait(0.05)
    ahead.start(job("new", 2))
    busy.clear()
    assert ahead.wait(5)
    assert done == [("new", 0), ("new", 1)]
    ahead.start(lambda: 1 / 0)  # what fails is logged, and the thread lives on
    assert ahead.wait(5)
    ahead.start(job("last", 1))
    assert ahead.wait(5)
    assert done[-1] == ("last", 0)
    ahead.close()
    ahead.start(job("after", 1))
    assert done[-1] == ("last", 0)


class Slow(BrightPiece):
    """Tells when it is at work, and goes on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work, self.may_go_on = threading.Event(), threading.Event()

    def encode(self, images, modality):
        self.at_work.set()
        assert self.may_go_on.wait(10)
        return super().encode(images, modality)


def test_requests_under_way_finish_with_the_model_that_they_began_with(volume, monkeypatch):
    old, new = Slow(), BrightPiece()
    new.model.card["sha256"] = "new"
    service = LabellingService(Segmenter(GreyBands()), Segmenter(old), modality="ct")
    monkeypatch.setattr(ServedModel, "open", lambda path, device="cpu": ServedModel.of(Segmenter(new), path))
    path, clicks = volume(), Clicks(foreground=((13, 30, 8),))
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(service.prompted_2d, path, clicks)
        assert old.at_work.wait(10)
        service.use_model(Path("published.pt"))
        old.may_go_on.set()
        assert under_way.result().mask.any()
    assert (old.encoded, new.encoded) == (1, 0)
    service.prompted_2d(path, clicks)
    assert (old.encoded, new.encoded) == (1, 1)
    service.close()


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(service, tmp_path):
    before = service.model
    (tmp_path / "model.pt").write_bytes(b"none")
    with pytest.raises(EffsamError):
        service.use_model(tmp_path / "model.pt")
    assert service.model is before


def test_a_new_self_prompting_model_tells_its_own_labels(service, monkeypatch):
    new = GreyBands()
    new.model.targets = new.model.targets[:2]
    task = inference_tasks(service)["automatic"]
    monkeypatch.setattr(ServedModel, "open", lambda path, device="cpu": ServedModel.of(Segmenter(new), path))
    service.use_model(Path("published.pt"))
    assert service.prompted_model.segmenter.promptable
    assert task.info()["labels"] == {"dim": 1, "middle": 2}


def test_a_label_that_only_the_self_prompting_model_knows_is_outlined_by_it(volume):
    bands, bright = GreyBands(), BrightPiece()
    bright.model.targets = bright.model.targets[:1]
    service = LabellingService(Segmenter(bands), Segmenter(bright), modality="ct")
    clicks = Clicks(foreground=((13, 30, 8),))
    assert service.prompted_2d(volume(), clicks, label="bright").quality == {"bright": 0.75}
    assert (bands.encoded, bright.encoded) == (1, 0)
    assert service.prompted_2d(volume(), clicks, label="my own").quality == {"my own": 0.9}
    assert (bands.encoded, bright.encoded) == (1, 1)
    service.close()
