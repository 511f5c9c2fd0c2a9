# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The teacher cache: what comes back, who may read it, and what survives kill -9, a full disk and two writers."""

import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from monai_effsam.data.teacher_cache import TeacherCache, content_key, form_cost
from monai_effsam.errors import DataError, UsageError

pytest.importorskip("lmdb")

TEACHER = {"sha256": "a" * 64, "spec": {"size": 64}}
WRITER = """
import sys
import numpy as np
from monai_effsam.data.teacher_cache import TeacherCache
folder, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with TeacherCache(folder, {"sha256": "a" * 64, "spec": {"size": 64}}) as cache:
    for number in range(start, stop):
        cache.write({f"{number:064d}": {"embedding": np.full((16, 32, 32), number % 1000, np.float32)}})
        print(number, flush=True)
"""
FULL = """
import resource, signal, sys
import numpy as np
from monai_effsam.data.teacher_cache import TeacherCache
from monai_effsam.errors import DataError
cache = TeacherCache(sys.argv[1], {"sha256": "a" * 64, "spec": {"size": 64}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
written = 0
try:
    for number in range(100):
        cache.write({f"{number:064d}": {"embedding": np.full((16, 32, 32), number, np.float32)}})
        written += 1
except DataError as error:
    print(written, error)
"""


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_whole(cache, numbers):
    """Every entry that is there is the one that was written."""
    for number, entry in zip(numbers, cache.read([f"{n:064d}" for n in numbers]), strict=True):
        assert entry is None or (entry["embedding"] == number % 1000).all()


@pytest.mark.parametrize(
    ("form", "error", "bytes_an_entry"), [("half", 5e-4, 32_768), ("compact", 4e-3, 16_384)]
)
def test_arrays_come_back_within_the_error_of_their_form(tmp_path, form, error, bytes_an_entry):
    array = noise(16, 32, 32) * np.linspace(0.1, 30, 16, dtype=np.float32)[:, None, None]
    with TeacherCache(tmp_path, TEACHER, form=form) as cache:
        cache.write({"k": {"embedding": array, "quality": np.array([0.25, 0.5], np.float32)}})
        (found,) = cache.read(["k"])
        assert cache.size < bytes_an_entry * 2 + 100_000
    assert found["embedding"].dtype == np.float32
    largest = np.abs(array).max((1, 2), keepdims=True)
    assert (np.abs(found["embedding"] - array) / largest).max() < error
    np.testing.assert_array_equal(found["quality"], [0.25, 0.5])


@pytest.mark.parametrize("form", ["half", "compact"])
def test_the_order_in_memory_does_not_matter(tmp_path, form):
    array = noise(4, 8, 8)
    channels_last = np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)
    with TeacherCache(tmp_path, TEACHER, form=form) as cache:
        cache.write({"k": {"embedding": channels_last}})
        np.testing.assert_allclose(cache.read(["k"])[0]["embedding"], array, atol=0.03)


def test_the_cost_of_a_form_is_what_the_cache_does(tmp_path):
    array = noise(4, 8, 8)
    for form, bits in (("half", 16), ("compact", 8)):
        with TeacherCache(tmp_path / form, TEACHER, form=form) as cache:
            cache.write({"k": {"embedding": array}})
            kept = cache.read(["k"])[0]["embedding"]
        cost = form_cost(array, form)
        assert cost.bytes == array.size * bits // 8 + (16 if form == "compact" else 0)  # a scale a channel
        assert cost.error == pytest.approx(np.linalg.norm(kept - array) / np.linalg.norm(array), rel=1e-5)


def test_what_is_there_and_what_is_not_is_counted(tmp_path):
    with TeacherCache(tmp_path, TEACHER) as cache:
        cache.write({key: {"embedding": noise(2, 2)} for key in "ab"})
        assert cache.missing(["a", "c", "c", "b", "d"]) == ["c", "d"]
        assert [entry is None for entry in cache.read(["a", "c", "b"])] == [False, True, False]
        assert (cache.hits, cache.misses, len(cache)) == (2, 1, 2)


def test_keys_follow_pixels_shape_and_view():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    same = np.asfortranarray(picture)
    keys = [content_key(p) for p in (picture, picture.reshape(4, 2, 3), picture + 1)]
    assert len({*keys, content_key(picture, "flip")}) == 4
    assert content_key(same) == keys[0]


def test_another_teachers_cache_is_refused_and_left_alone(tmp_path):
    with TeacherCache(tmp_path, TEACHER) as cache:
        cache.write({"a": {"embedding": noise(2, 2)}})
    with pytest.raises(UsageError, match=r"another teacher made \(other sha256\)"):
        TeacherCache(tmp_path, {**TEACHER, "sha256": "b" * 64})
    with pytest.raises(UsageError, match=r"other form"):
        TeacherCache(tmp_path, TEACHER, form="compact")
    with TeacherCache(tmp_path, TEACHER) as cache:
        assert len(cache) == 1


def test_a_limit_that_is_reached_is_one_clear_error(tmp_path):
    cache = TeacherCache(tmp_path, TEACHER, limit=200_000)
    cache.write({"a": {"embedding": noise(16, 32, 32)}})
    many = {str(number): {"embedding": noise(16, 32, 32)} for number in range(20)}
    with pytest.raises(DataError, match="is full at"):
        cache.write(many)
    assert len(cache) == 1  # all of them or none
    assert cache.read(["a"])[0] is not None


def test_a_folder_that_cannot_be_used_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be opened"):
        TeacherCache(tmp_path / "file", TEACHER)


def test_it_travels_to_another_process(tmp_path):
    cache = TeacherCache(tmp_path, TEACHER)
    cache.write({"a": {"embedding": noise(2, 2)}})
    cache.close()
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.read(["a"])[0] is not None
    copy.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    written, _, message = done.stdout.partition(" ")
    assert "cannot be written" in message
    assert int(written) > 0
    with TeacherCache(tmp_path, TEACHER) as cache:
        assert len(cache) == int(written)
        assert_whole(cache, range(int(written)))
        cache.write({"more": {"embedding": noise(16, 32, 32)}})  # with room again it goes on


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_two_writers_at_once_and_one_of_them_killed(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start), str(stop)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for start, stop in ((0, 100_000), (100_000, 100_040))
    ]
    assert writers[0].stdout.readline()
    time.sleep(0.3)
    writers[0].send_signal(signal.SIGKILL)
    told = [int(line) for line in writers[0].stdout]
    writers[0].wait()
    assert writers[1].wait() == 0
    with TeacherCache(tmp_path, TEACHER) as cache:
        assert len(cache) >= len(told) + 40
        assert cache.missing([f"{n:064d}" for n in [*told, *range(100_000, 100_040)]]) == []
        assert_whole(cache, [*range(max(told, default=0) + 2), *range(100_000, 100_040)])
    for writer in writers:
        writer.stdout.close()
