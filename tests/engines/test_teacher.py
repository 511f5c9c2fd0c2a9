# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Teachers: what they give, what a cache saves them, and that neither kill -9 nor a limit spoils it."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_effsam.checkpoints import FAMILIES, save_model
from monai_effsam.data.distilling import EMBEDDING
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.data.views import make_view
from monai_effsam.engines.teacher import Teacher, load_teacher, state_sha256
from monai_effsam.errors import DataError, UsageError
from monai_effsam.losses.saliency_maps import activation_map
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec

pytest.importorskip("lmdb")

ENCODER = {"name": "timm_pyramid", "model": "mobilenetv3_small_050", "embed_channels": 32}
FILLER = """
import sys
import numpy as np
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.engines.teacher import load_teacher
random = np.random.default_rng(0)
pictures = [
    LabelledSlice(random.integers(0, 256, (40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), "", "", "", ())
    for _ in range(int(sys.argv[2]))
]
teacher = load_teacher("random", batch=2)
teacher.open_cache(sys.argv[1])
def told(parts):
    for part in parts:
        yield part
        print(part, flush=True)
print(teacher.fill(pictures, views=2, progress=told))
"""


def pictures(count):
    random = np.random.default_rng(0)
    return [
        LabelledSlice(
            random.integers(0, 256, (40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), "", "", "", ()
        )
        for _ in range(count)
    ]


def views(count, numbers=(0,), modality=""):
    return [make_view(p.image, p.label, modality, n) for p in pictures(count) for n in numbers]


@pytest.fixture
def counted(monkeypatch):
    """How many views any teacher's network has looked at."""
    looks = []
    run = Teacher._run
    monkeypatch.setattr(Teacher, "_run", lambda self, v: looks.append(len(v)) or run(self, v))
    return looks


def test_a_random_teacher_is_the_same_for_a_seed_and_touches_no_global_one():
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    same, again, other = load_teacher("random"), load_teacher("random"), load_teacher("random", seed=1)
    assert torch.equal(torch.rand(1), first)
    assert same.sha256 == again.sha256 != other.sha256
    (arrays,) = same.arrays(views(1))
    assert arrays[EMBEDDING].shape == (256, 8, 8)
    np.testing.assert_array_equal(arrays[EMBEDDING], again.arrays(views(1))[0][EMBEDDING])


def test_a_teacher_sees_a_view_by_its_own_spec():
    teacher = load_teacher("random", batch=2)
    seen = views(3, (0, 1))
    found = teacher.arrays(seen)
    assert len(found) == 6
    alone = teacher.arrays(seen[5:])[0][EMBEDDING]
    np.testing.assert_allclose(found[5][EMBEDDING], alone, atol=1e-5)
    assert not teacher.network.training
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_what_a_cache_holds_is_not_computed_again(tmp_path, counted):
    teacher = load_teacher("random", batch=2)
    fresh = teacher.arrays(views(3))
    cache = teacher.open_cache(tmp_path)
    assert teacher.fill(pictures(3), views=2) == (6, 0)
    assert sum(counted) == 3 + 6
    found = teacher.arrays(views(3))
    assert (cache.hits, cache.misses) == (3, 0)
    for a, b in zip(found, fresh, strict=True):
        np.testing.assert_allclose(a[EMBEDDING], b[EMBEDDING], atol=4e-3)
    assert teacher.fill(pictures(4), views=2) == (2, 6)
    teacher.arrays(views(5))
    assert (cache.hits, cache.misses, len(cache)) == (7, 1, 9)
    assert sum(counted) == 9 + 2 + 1
    cache.close()


def test_views_of_different_sizes_come_back_in_order():
    network = PromptableSam(ENCODER)
    specs = {"": ImageSpec(64), "fundus": ImageSpec(96)}
    teacher = Teacher(network, specs, "s")
    mixed = [*views(1), *views(2, modality="fundus"), *views(3)[2:]]
    assert [a[EMBEDDING].shape[1] for a in teacher.arrays(mixed)] == [4, 6, 6, 4]


def test_another_teacher_or_spec_or_choice_of_arrays_is_another_cache(tmp_path):
    first = load_teacher("random")
    first.open_cache(tmp_path).close()
    others = {
        "teacher": load_teacher("random", seed=1),
        "kept": load_teacher("random", keep=["saliency"]),
        "specs": Teacher(first.network, {"": ImageSpec(128, "longest")}, first.sha256),
    }
    for name, other in others.items():
        with pytest.raises(UsageError, match=rf"another teacher made \(other {name}\)"):
            other.open_cache(tmp_path)


def test_saliency_is_the_energy_before_the_last_norm():
    teacher = Teacher(PromptableSam(ENCODER), {"": ImageSpec(64)}, "s", keep=["saliency"])
    (arrays,) = teacher.arrays(views(1))
    encoder = teacher.network.image_encoder
    kept = []
    encoder.neck[2].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    assert teacher.arrays(views(1))[0]["saliency"].shape == (4, 4)
    np.testing.assert_allclose(arrays["saliency"], activation_map(kept[0])[0], rtol=1e-4)
    assert arrays["saliency"].std() > 0


def test_logits_answer_the_boxes_of_the_objects(tmp_path):
    network = PromptableSam(ENCODER)
    teacher = Teacher(network, {"": ImageSpec(64, "longest")}, "s", keep=["logits"])
    teacher.open_cache(tmp_path)
    label = np.zeros((40, 80), np.uint8)
    label[10:20, 20:60], label[30:40, 0:8] = 2, 1
    image = pictures(1)[0].image
    some = make_view(np.hstack([image, image[:, :20]]), label, "", 0)
    none = make_view(image, np.zeros((40, 60), np.uint8), "", 0)
    found, empty = teacher.arrays([some, none])
    assert found["logits"].shape == (2, 16, 16)
    assert empty["logits"].shape == (0, 16, 16)
    assert empty["quality"].shape == (0,)
    boxes = torch.tensor([[[0, 30, 8, 40], [20, 10, 60, 20]]]) * 0.8
    with torch.no_grad():
        fitted = torch.from_numpy(teacher.arrays([some])[0][EMBEDDING])[None]
        masks = network.decode(type(network.encode(torch.zeros(1, 3, 64, 64)))(fitted), boxes=boxes)
    np.testing.assert_allclose(found["logits"], masks.mask_logits[0, :, 0], atol=0.02)
    again = teacher.arrays([some])[0]
    np.testing.assert_allclose(again["logits"], found["logits"], atol=0.02)
    teacher.cache.close()


def test_a_self_prompting_teacher_follows_the_modality():
    network = EspMedSam({**ENCODER, "name": "timm", "heads": 2})
    for module in network.encoder.experts.parameters():
        torch.nn.init.normal_(module, std=0.5)
    teacher = Teacher(network, {m: ImageSpec(64) for m in network.modalities}, "s")
    a, b = (teacher.arrays(views(1, modality=m))[0][EMBEDDING] for m in ("ct", "endoscopy"))
    assert np.abs(a - b).max() > 1e-3
    with pytest.raises(UsageError, match="logits are wanted"):
        Teacher(network, {}, "s", keep=["logits"])


def test_a_model_file_is_a_teacher(tmp_path):
    network = PromptableSam(ENCODER)
    save_model(tmp_path / "model.pt", network, {"": ImageSpec(64)}, {"image_encoder": ENCODER}, half=False)
    teacher = load_teacher(tmp_path / "model.pt")
    assert teacher.specs == {"": ImageSpec(64)}
    assert len(teacher.sha256) == 64
    assert state_sha256(teacher.network) == state_sha256(network)


def test_a_checkpoint_of_others_is_a_teacher_with_its_familys_input(tmp_path):
    network = PromptableSam({"name": "tiny_vit", "stem_stride": 1})
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "lite_medsam.pth")
    teacher = load_teacher(tmp_path / "lite_medsam.pth")
    assert teacher.specs == {"": FAMILIES["lite_medsam"].spec}
    assert state_sha256(teacher.network) == state_sha256(network)
    assert teacher.encoder.stride == 4


def test_a_limit_that_is_reached_loses_nothing(tmp_path):
    teacher = load_teacher("random", batch=2)
    teacher.open_cache(tmp_path, limit=300_000)
    with pytest.raises(DataError, match=r"teacher cache is full at 0\.0003 GB"):
        teacher.fill(pictures(20))
    there = len(teacher.cache)
    assert 0 < there < 20
    teacher.cache.close()
    teacher.open_cache(tmp_path)
    assert teacher.fill(pictures(20)) == (20 - there, there)
    teacher.cache.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_filling_survives_kill_9_and_two_processes_share_it(tmp_path):
    command = [sys.executable, "-c", FILLER, str(tmp_path)]
    first = subprocess.Popen([*command, "4000"], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        assert first.stdout.readline().startswith("range")
    first.send_signal(signal.SIGKILL)
    first.stdout.read()
    first.stdout.close()
    first.wait()
    both = [subprocess.Popen([*command, "40"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate()[0].splitlines()[-1] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert all(end.startswith("Filled(") for end in ends)
    teacher = load_teacher("random", batch=2)
    fresh = teacher.arrays(views(40))
    teacher.open_cache(tmp_path)
    assert teacher.fill(pictures(40), views=2) == (0, 80)
    for a, b in zip(teacher.arrays(views(40)), fresh, strict=True):
        np.testing.assert_allclose(a[EMBEDDING], b[EMBEDDING], atol=4e-3)
    teacher.cache.close()


def test_two_families_of_one_file_are_two_caches(tmp_path):
    network = PromptableSam(ENCODER)
    specs = [{"": replace(FAMILIES[name].spec, size=64)} for name in ("sam", "medsam")]
    Teacher(network, specs[0], "s").open_cache(tmp_path).close()
    with pytest.raises(UsageError, match="other specs"):
        Teacher(network, specs[1], "s").open_cache(tmp_path)
