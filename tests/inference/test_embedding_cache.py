# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Embedding cache: what its keys tell apart, its bounds, exact files, many threads and processes."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monai_effsam.data.io import Image
from monai_effsam.errors import DataError, UsageError
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.embedding_cache import EmbeddingCache, embedding_key, encoder_identity
from monai_effsam.networks.encoders import Encoded
from monai_effsam.specs import ImageSpec

SPEC = ImageSpec(size=64)
KEY = "0" * 64


def picture(seed: int = 0, name: str = "x") -> Image:
    slices = np.random.default_rng(seed).integers(0, 255, (2, 20, 30), np.uint8)
    return Image(Path(name), name, slices, None, None, None, "raster", False, SimpleNamespace())


def encoding(seed: int = 0, side: int = 4, modality: str | None = "ct") -> Encoding:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(1, 8, side, side, generator=generator).to(memory_format=torch.channels_last)
    skip = torch.randn(1, 3, 2 * side, 2 * side, generator=generator)
    return Encoding(Encoded(embedding, (skip,)), SPEC.place((20, 30)), modality, 1, {"encode": 3.0})


def test_key_is_of_the_content_and_not_of_the_name():
    assert embedding_key(picture(), 0, "m", SPEC) == embedding_key(picture(name="y"), 0, "m", SPEC)
    assert len(embedding_key(picture(), 0, "m", SPEC)) == 64


@pytest.mark.parametrize(
    ("image", "index", "model", "spec", "modality"),
    [
        (picture(1), 0, "m", SPEC, None),
        (picture(), 1, "m", SPEC, None),
        (picture(), 0, "n", SPEC, None),
        (picture(), 0, "m", replace(SPEC, interpolation="area"), None),
        (picture(), 0, "m", SPEC, "ct"),
        (replace(picture(), slices=picture().slices.reshape(2, 30, 20)), 0, "m", SPEC, None),
    ],
)
def test_key_tells_pixels_shape_slice_model_spec_and_modality_apart(image, index, model, spec, modality):
    assert embedding_key(image, index, model, spec, modality) != embedding_key(picture(), 0, "m", SPEC)


@pytest.mark.parametrize("kind", ["torch", "arrays", "array"])
def test_a_file_gives_back_exactly_what_was_put(tmp_path, kind):
    put = encoding()
    arrays = {"embedding": np.ones((1, 2, 3, 3), np.float32), "skip_0": np.zeros((1, 2, 6, 6), np.float32)}
    if kind == "arrays":
        put = replace(put, encoded=arrays, modality=None)
    elif kind == "array":
        put = replace(put, encoded=arrays["embedding"])
    EmbeddingCache(tmp_path).put(KEY, put)
    found = EmbeddingCache(tmp_path).get(KEY)
    assert found is not None
    assert (found.placement, found.modality, len(found)) == (put.placement, put.modality, 1)
    if kind == "torch":
        assert torch.equal(found.encoded.embedding, put.encoded.embedding)
        assert found.encoded.embedding.stride() == put.encoded.embedding.stride()
        assert torch.equal(found.encoded.skips[0], put.encoded.skips[0])
        found.encoded.embedding.add_(1)  # its own memory, and writable
    elif kind == "arrays":
        assert found.encoded.keys() == arrays.keys()
        assert all(np.array_equal(found.encoded[name], arrays[name]) for name in arrays)
    else:
        assert np.array_equal(found.encoded, arrays["embedding"])


def test_memory_keeps_what_was_used_last_within_its_bound():
    one = 4 * (8 * 16 + 3 * 64)
    cache = EmbeddingCache(memory_bytes=2 * one)
    for name in "ab":
        cache.put(name, encoding())
    assert cache.get("a") is not None
    cache.put("c", encoding())
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]
    assert cache.stats.memory_bytes == 2 * one
    cache.put("a", encoding())  # again: counted once
    assert cache.stats.memory_bytes == 2 * one
    cache.put("large", encoding(side=40))
    assert cache.get("large") is None
    assert cache.stats.entries == 2


def test_files_stay_within_their_bound_and_those_used_longest_ago_go_first(tmp_path):
    content = EmbeddingCache(tmp_path / "probe")
    content.put(KEY, encoding())
    one = content.stats.disk_bytes
    cache = EmbeddingCache(tmp_path / "cache", memory_bytes=0, disk_bytes=int(3.5 * one))
    for number, name in enumerate("abc"):
        cache.put(name, encoding(number))
        time.sleep(0.02)
    assert cache.get("a") is not None  # used last now
    time.sleep(0.02)
    cache.put("d", encoding(3))
    left = {name for name in "abcd" if cache.get(name) is not None}
    assert left == {"a", "c", "d"}
    assert sum(f.stat().st_size for f in (tmp_path / "cache").iterdir()) <= int(3.5 * one)


def test_a_damaged_file_is_a_miss_and_goes(tmp_path):
    EmbeddingCache(tmp_path).put(KEY, encoding())
    (file,) = tmp_path.iterdir()
    for content in (file.read_bytes()[:-9], b"", b"\xff" * 100):
        file.write_bytes(content)
        cache = EmbeddingCache(tmp_path)
        assert cache.get(KEY) is None
        assert not file.exists()
        assert cache.stats.misses == 1


def test_what_a_killed_writer_left_is_removed_when_old(tmp_path):
    new, old = tmp_path / ".part-1.safetensors", tmp_path / ".part-2.safetensors"
    for file in (new, old):
        file.write_bytes(b"x")
    os.utime(old, (1, 1))
    EmbeddingCache(tmp_path)
    assert new.exists()
    assert not old.exists()


def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path, monkeypatch, caplog):
    cache = EmbeddingCache(tmp_path)

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put(KEY, encoding())
    assert cache.get(KEY) is not None
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_wrong_bounds_and_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="expected 0 or more"):
        EmbeddingCache(memory_bytes=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        EmbeddingCache(tmp_path / "file")


def test_clear_forgets_memory_and_files(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put(KEY, encoding())
    cache.clear()
    assert cache.get(KEY) is None
    assert list(tmp_path.iterdir()) == []
    assert cache.stats[-2:] == (0, 0)


def fill(folder: Path) -> None:
    cache = EmbeddingCache(folder, memory_bytes=0)
    for number in range(40):
        cache.put(str(number), encoding(number))
        found = cache.get(str(number))
        assert found is not None
        assert torch.equal(found.encoded.embedding, encoding(number).encoded.embedding)


@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_threads_and_processes_share_a_folder(tmp_path, processes):
    spawn = multiprocessing.get_context("spawn")
    started = [spawn.Process(target=fill, args=(tmp_path,)) for _ in range(processes)]
    for process in started:
        process.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [tmp_path] * 4))  # raises what a thread raised
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes
    assert len(list(tmp_path.iterdir())) == 40


def test_identity_follows_the_encoder_and_not_the_decoder():
    network = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "decoder": torch.nn.Linear(2, 2)})
    runtime = SimpleNamespace(network=network, name="torch", device="cpu")
    of = SimpleNamespace(runtime=runtime, device="cpu", model=SimpleNamespace(card={"sha256": "x"}))
    before = encoder_identity(of)
    network.decoder.weight.data.add_(1)
    assert encoder_identity(of) == before
    network.encoder.weight.data.add_(1)
    assert encoder_identity(of) != before
