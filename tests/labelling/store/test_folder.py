# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A folder as MONAI Label's datastore: formats, ids, labels that stay, and many at once."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("monailabel")

from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from monai_effsam.errors import UsageError
from monai_effsam.labelling.store.folder import FolderStore


@pytest.fixture
def folder(tmp_path):
    """Images of every ending in question, and what is no image."""
    for name in ("a.png", "b.JPEG", "c.bmp", "d.TIFF", "e.webp", "f.nii.gz", "g.dcm", "benign (1).PNG"):
        (tmp_path / name).write_bytes(name.encode())
    for name in ("notes.txt", ".hidden.png", "results.jsonl"):
        (tmp_path / name).write_bytes(b"-")
    return tmp_path


@pytest.fixture
def label(tmp_path_factory):
    """A label file, as a viewer would send it."""
    path = tmp_path_factory.mktemp("sent") / "sent.nii.gz"
    path.write_bytes(b"mask 1")
    return path


def aged(*paths):
    """Let paths look as if they were last changed long ago, so that a store trusts what it saw."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)


def test_every_format_is_listed_whatever_the_case_of_its_ending(folder):
    store = FolderStore(folder)
    assert sorted(store.list_images()) == ["a", "b", "benign (1)", "c", "d", "e", "f", "g"]
    assert Path(store.get_image_uri("b")) == folder / "b.JPEG"
    assert store.get_image("d").read() == b"d.TIFF"


def test_two_files_of_one_name_are_two_images(folder):
    FolderStore(folder)
    (folder / "a.jpg").write_bytes(b"other")
    store = FolderStore(folder)
    assert {"a", "a.jpg"} <= set(store.list_images())
    assert store.get_image("a.jpg").read() == b"other"
    assert store.get_image("a").read() == b"a.png"
    with pytest.raises(UsageError, match=r"a\.jpg is another image"):
        store.add_image("a", str(folder / "a.jpg"), {})


def test_label_and_its_names_are_stored(folder, label):
    store = FolderStore(folder)
    info = {"label_info": [{"name": "polyp", "idx": 1}], "client_id": "me"}
    assert store.save_label("b", str(label), "final", info) == "b"
    for one in (store, FolderStore(folder)):
        assert one.get_label("b", "final").read() == b"mask 1"
        assert one.get_label_info("b", "final")["label_info"] == info["label_info"]
        assert one.get_labeled_images() == ["b"]
        assert "b" not in one.get_unlabeled_images()
        assert one.status() == {"total": 8, "completed": 1, "label_tags": {"final": 1}}
        [row] = one.datalist()
        assert row["image"] == str(folder / "b.JPEG")
        assert row["meta"]["label"]["client_id"] == "me"


def test_a_label_of_another_ending_takes_the_old_ones_place(folder, label, tmp_path):
    store = FolderStore(folder)
    store.save_label("a", str(label), "final", {})
    other = label.with_name("other.PNG")
    other.write_bytes(b"mask 2")
    store.save_label("a", str(other), "final", {})
    assert [p.name for p in (folder / "labels/final").iterdir()] == ["a.png"]
    assert FolderStore(folder).get_label("a", "final").read() == b"mask 2"


def test_an_image_sent_again_keeps_its_labels(folder, label, tmp_path_factory):
    store = FolderStore(folder)
    store.save_label("a", str(label), "final", {"label_info": [{"name": "polyp", "idx": 1}]})
    again = tmp_path_factory.mktemp("again") / "whatever.jpg"
    again.write_bytes(b"new pixels")
    assert store.add_image("a", str(again), {"from": "slicer"}) == "a"
    for one in (store, FolderStore(folder)):
        assert one.get_image("a").read() == b"new pixels"
        assert one.get_label_info("a", "final")["label_info"] == [{"name": "polyp", "idx": 1}]
        assert one.list_images().count("a") == 1
    assert not (folder / "a.png").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".hidden", "x\n", "a\\b", "", "x" * 201, "x\0"])
def test_ids_are_file_names(folder, name, tmp_path_factory):
    picture = tmp_path_factory.mktemp("in") / ".png"
    picture.write_bytes(b"-")
    with pytest.raises(UsageError, match="image id"):
        FolderStore(folder).add_image(name, str(picture), {})


@pytest.mark.parametrize("tag", ["../x", "A", "", "a/b", "x" * 33])
def test_tags_are_words(folder, label, tag):
    with pytest.raises(UsageError, match="label tag"):
        FolderStore(folder).save_label("a", str(label), tag, {})


def test_what_is_not_there_is_told(folder, label):
    store = FolderStore(folder)
    with pytest.raises(ImageNotFoundException):
        store.save_label("none", str(label), "final", {})
    with pytest.raises(ImageNotFoundException):
        store.update_image_info("none", {})
    with pytest.raises(LabelNotFoundException):
        store.update_label_info("a", "final", {})
    with pytest.raises(UsageError, match="unknown ending"):
        store.save_label("a", str(folder / "notes.txt"), "final", {})
    assert store.get_image_uri("../../etc/passwd") == ""
    assert store.get_image_info("none") == store.get_label_info("none", "final") == {}


def test_removing(folder, label):
    store = FolderStore(folder)
    store.save_label("a", str(label), "final", {})
    store.save_label("a", str(label), "original", {})
    store.remove_label("a", "original")
    assert store.get_labels_by_image_id("a") == {"final": "a"}
    store.remove_image("a")
    assert "a" not in store.list_images()
    assert not (folder / "a.png").exists()
    assert not list((folder / "labels").rglob("*.nii.gz"))


def test_files_of_others_are_seen(folder, label):
    store = FolderStore(folder)
    aged(folder, folder / "datastore_v2.json")
    store.list_images()
    (folder / "new.png").write_bytes(b"-")
    assert "new" in store.list_images()
    (folder / "labels" / "final").mkdir(parents=True)
    (folder / "labels" / "final" / "new.nii.gz").write_bytes(b"-")
    assert store.get_labeled_images() == ["new"]
    (folder / "new.png").unlink()
    assert "new" not in store.list_images()


@pytest.mark.slow
def test_a_folder_of_the_stock_store_opens(folder, label):
    from monailabel.datastore.local import LocalDatastore

    stock = LocalDatastore(str(folder), extensions=("*.png", "*.nii.gz"))
    stock.save_label("a", str(label), "final", {"label_info": [{"name": "polyp", "idx": 2}]})
    stock.update_image_info("a", {"strategy": {"random": {"ts": 5}}})
    store = FolderStore(folder)
    assert store.get_label_info("a", "final")["label_info"] == [{"name": "polyp", "idx": 2}]
    assert store.get_image_info("a")["strategy"] == {"random": {"ts": 5}}
    assert LocalDatastore(str(folder), extensions=("*.png", "*.nii.gz")).get_labeled_images() == ["a"]


def test_a_damaged_state_is_kept_aside_and_the_files_are_listed_again(folder, label):
    FolderStore(folder).save_label("a", str(label), "final", {})
    state = folder / "datastore_v2.json"
    state.write_bytes(state.read_bytes()[:50])
    store = FolderStore(folder)
    assert store.get_labeled_images() == ["a"]
    assert len(store.list_images()) == 8
    assert [p.stat().st_size for p in folder.glob("datastore_v2.json.damaged-*")] == [50]


def test_infos_of_many_images_are_one_write(folder, monkeypatch):
    from monai_effsam.labelling.store import folder_files

    store = FolderStore(folder)
    writes, plain = [], folder_files.write_durably
    monkeypatch.setattr(folder_files, "write_durably", lambda *a: (writes.append(a[0].name), plain(*a)))
    store.update_images_info({"a": {"score": 1}, "b": {"score": 2}, "gone": {"score": 3}})
    assert writes == ["datastore_v2.json"]
    assert [store.get_image_info(k)["score"] for k in "ab"] == [1, 2]


def test_threads_and_stores_of_one_folder_lose_nothing(folder, label):
    for number in range(40):
        (folder / f"p{number}.png").write_bytes(b"-")
    stores = [FolderStore(folder), FolderStore(folder)]
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            if len(stores[0].list_images()) != 48 or not stores[1].get_image_uri("p7"):
                wrong.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(stores[n % 2].save_label, f"p{n}", str(label), "final", {"n": n}) for n in range(40)
        ]
        jobs += [pool.submit(stores[n % 2].update_image_info, f"p{n}", {"m": n}) for n in range(40)]
        for job in jobs:
            job.result()
    stop.set()
    reader.join()
    assert not wrong
    for store in (*stores, FolderStore(folder)):
        assert len(store.get_labeled_images()) == 40
        assert [store.get_label_info(f"p{n}", "final")["n"] for n in range(40)] == list(range(40))
        assert [store.get_image_info(f"p{n}")["m"] for n in range(40)] == list(range(40))


def test_archive_holds_pairs_and_state(folder, label):
    import zipfile

    store = FolderStore(folder)
    store.save_label("a", str(label), "final", {})
    path = Path(store.get_dataset_archive(None))
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == ["image/a.png", "label/a.nii.gz", "metadata.json"]
        assert "a" in json.loads(file.read("metadata.json"))["objects"]
    path.unlink()
