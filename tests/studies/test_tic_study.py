# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The comparison of TiC with other networks: equal size, equal training, other sizes, rows, page, resume."""

import json
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_effsam.errors import DataError
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.networks.blocks.tic_block import TicMerging
from monai_effsam.networks.layers import CyclicShift, InterPooling
from monai_effsam.networks.layers.msa_conv import MSAConv2d
from monai_effsam.studies.tic import runs
from monai_effsam.studies.tic.__main__ import main
from monai_effsam.studies.tic.batches import StudyBatches, study_view, val_images
from monai_effsam.studies.tic.growth import (
    GROWING,
    PLAIN_VIT,
    GrowthRow,
    append_growth,
    exponents,
    growth_net,
    measure_growth,
    read_growth,
)
from monai_effsam.studies.tic.nets import (
    ABLATION,
    CONVOLUTION,
    FINE_TIC,
    STUDY_NETS,
    TASK_NETS,
    TIC,
    VIT,
    study_net,
)
from monai_effsam.studies.tic.page import write_study
from monai_effsam.studies.tic.runs import StudyPlan, StudyRow, append_rows, read_rows, run_study
from monai_effsam.studies.tic.tables import growth_table, losses, values, verdict_table, whole_seeds
from monai_effsam.studies.tic.tasks import StudyTask, read_task

PLAN = StudyPlan(
    side=32, sides=(32, 48), steps={"made up": 4, "breast": 4, "modality": 4}, batch=4, rate=1e-3
)


@pytest.fixture
def task():
    random = np.random.RandomState(0)
    train = tuple(
        tuple(random.randint(low, low + 90, (40, 50, 3)).astype(np.uint8) for _ in range(5))
        for low in (0, 150)
    )
    val = tuple(pictures[0] for pictures in train)
    return StudyTask("made up", ("dark", "bright"), train, val, (0, 1))


def row(net, seed, side, accuracy, task="breast"):
    return StudyRow(task, net, seed, side, accuracy, accuracy - 0.1, 0.9, 0.8, 1000, 2.0)


def made_up_rows(seeds=3):
    """TiC loses 0.1 at 96 px, the ViT 0.2 and a little more each seed, all others 0.1."""
    found = []
    for seed in range(seeds):
        for net in TASK_NETS["breast"]:
            lost = 0.2 + 0.01 * seed if net == VIT else 0.1
            found += [row(net, seed, side, 0.8 - lost * (side != 128)) for side in StudyPlan().sides]
    return found


def test_all_networks_have_equal_parameters():
    counts = {name: count_parameters(study_net(name, 3, 128)) for name in STUDY_NETS}
    assert len(counts) == 6
    assert all(3e5 < count < 1e6 for count in counts.values())
    assert all(abs(a - b) / min(a, b) < 0.03 for a, b in combinations(counts.values(), 2))


def test_each_step_of_the_ablation_adds_one_part():
    parts = {
        name: tuple(any(isinstance(m, part) for m in study_net(name, 3, 128).modules()) for part in
                    (MSAConv2d, CyclicShift, InterPooling))
        for name in STUDY_NETS
    }  # fmt: skip
    assert [parts[name] for name in ABLATION] == [
        (True, False, False),
        (True, True, False),
        (True, True, True),
    ]
    assert parts[CONVOLUTION] == parts[VIT] == (False, False, False)


def test_the_convolution_net_keeps_windows_strides_and_map():
    tic, plain = study_net(ABLATION[0], 3, 128), study_net(CONVOLUTION, 3, 128)
    for ours, theirs in zip(tic.trunk.stages, plain.trunk.stages, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert b.attention.dilation == a.attention.window.dilation
            assert b.attention.kernel_size == a.attention.window.size
    assert not any(isinstance(m, TicMerging) for m in plain.modules())
    image = torch.randn(1, 3, 96, 64)
    assert [m.shape[2:] for m in plain.trunk(image)] == [m.shape[2:] for m in tic.trunk(image)]


def test_the_table_of_positions_is_resized_bicubically():
    vit = study_net(VIT, 3, 128).eval()
    table = vit.pos_embed.detach()
    assert table.shape[1] == 64  # patches of 16 px, no class token
    seen = {}
    vit.blocks.register_forward_pre_hook(lambda _module, args: seen.update(x=args[0]))
    with torch.inference_mode():
        for side in (128, 224, 96):
            image = torch.randn(1, 3, side, side)
            vit(image)
            tokens = vit.patch_embed(image).flatten(1, 2)
            grid = table.unflatten(1, (8, 8)).permute(0, 3, 1, 2)
            wanted = F.interpolate(grid, (side // 16,) * 2, mode="bicubic", antialias=True)
            wanted = grid if side == 128 else wanted
            torch.testing.assert_close(seen["x"] - tokens, wanted.flatten(2).mT, atol=1e-5, rtol=0)


def test_a_seed_gives_the_same_weights_again_and_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (study_net(TIC, 3, 128, seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_network_sees_the_same_batches(task, monkeypatch):
    seen = {}

    class Told(StudyBatches):
        def batch(self, step):
            found = super().batch(step)
            seen.setdefault(net, []).append((step, found.image.sum().item(), found.target.tolist()))
            return found

    monkeypatch.setattr(runs, "StudyBatches", Told)
    images = {side: val_images(task, side) for side in PLAN.sides}
    for net in (VIT, CONVOLUTION):
        found = run_study(task, net, 3, PLAN, images)
        assert [(r.net, r.seed, r.side) for r in found] == [(net, 3, 32), (net, 3, 48)]
    assert seen[VIT] == seen[CONVOLUTION]
    assert [step for step, *_ in seen[VIT]] == [0, 1, 2, 3]
    assert len({value for _, value, _ in seen[VIT]}) == 4
    assert not torch.equal(
        StudyBatches(task, 32, 4, 4, 0).batch(0).image, StudyBatches(task, 32, 4, 4, 1).batch(0).image
    )


def test_a_network_learns_what_is_easy(task):
    plan = replace(PLAN, steps={"made up": 30})
    found = run_study(task, CONVOLUTION, 0, plan, {side: val_images(task, side) for side in plan.sides})
    assert [r.accuracy for r in found] == [1.0, 1.0]
    assert found[0].fitted > 0.9
    assert found[0].parameters == count_parameters(study_net(CONVOLUTION, 2, 32))


def test_views_keep_half_of_the_picture_and_its_kind(task):
    ramp = np.repeat(np.arange(0, 250, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(200, axis=1)
    views = [study_view(ramp, np.random.RandomState(i), 32) for i in range(30)]
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)
    assert len({view.tobytes() for view in views}) == 30
    assert all(np.ptp(view[:, 0, 0].astype(int)) > 50 for view in views)
    assert study_view(task.train[0][0][:1, :1], np.random.RandomState(0), 32).shape == (32, 32, 3)


def write_busi(folder, classes=("benign", "malignant", "normal")):
    (folder / "busi" / "images").mkdir(parents=True)
    (folder / "targets.csv").write_text("set,modality,target,label_value\nbusi,ultrasound,breast_lesion,1\n")
    lines = ["image,mask,split,case,label_class"]
    for number, (label, split) in enumerate((c, s) for c in classes for s in ("train", "val", "val", "val")):
        name = f"images/{number}.png"
        cv2.imwrite(str(folder / "busi" / name), np.full((300, 400), number, np.uint8))
        lines.append(f"{name},masks/{number}.png,{split},{number},{label}")
    (folder / "busi" / "splits.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_task_is_read_as_split_and_some_of_it_is_tested(tmp_path):
    task = read_task("breast", write_busi(tmp_path), 2)
    assert task.classes == ("benign", "malignant", "normal")
    assert [[int(p[0, 0, 0]) for p in pictures] for pictures in task.train] == [[0], [4], [8]]
    assert task.target == (0, 0, 1, 1, 2, 2)
    assert all(int(p[0, 0, 0]) // 4 == k for p, k in zip(task.val, task.target, strict=True))
    assert task.val[0].shape == (300, 400, 3)  # as stored: larger tests need it
    assert max(task.train[0][0].shape) == 256
    assert val_images(task, 320).shape == (6, 3, 320, 320)
    assert len(read_task("breast", tmp_path).val) == 9


def test_a_class_without_test_pictures_is_refused(tmp_path):
    folder = write_busi(tmp_path)
    table = folder / "busi" / "splits.csv"
    table.write_text(table.read_text().replace("val,9,", "train,9,").replace("val,10,", "train,10,")
                     .replace("val,11,", "train,11,"))  # fmt: skip
    with pytest.raises(DataError, match="4 pictures of normal to train on and 0 to test on"):
        read_task("breast", folder, 2)


def test_rows_come_back_as_written(tmp_path):
    assert read_rows(tmp_path / "rows.jsonl") == []
    for seed in (0, 1):
        append_rows(tmp_path / "out" / "rows.jsonl", [row(TIC, seed, side, 0.7) for side in (96, 128)])
    assert [(r.seed, r.side) for r in read_rows(tmp_path / "out" / "rows.jsonl")] == [
        (0, 96), (0, 128), (1, 96), (1, 128)
    ]  # fmt: skip


def test_only_whole_seeds_are_told():
    found = [r for r in made_up_rows() if (r.net, r.seed) != (VIT, 2)]
    assert {r.seed for r in whole_seeds(found, "breast")} == {0, 1}
    assert whole_seeds(found, "modality") == []


def test_an_extra_network_is_told_apart_with_the_seeds_that_have_it():
    found = [replace(r, task="modality") for r in made_up_rows(2)]
    extra = [replace(r, net=FINE_TIC) for r in found if r.net == TIC]
    one = [*found, *(r for r in extra if r.seed == 0)]
    assert {(r.net, r.seed) for r in whole_seeds(one, "modality")} == {(r.net, r.seed) for r in found}
    both = whole_seeds(one, "modality", extra=True)
    assert {r.net for r in both} == {*TASK_NETS["modality"], FINE_TIC}
    assert {r.seed for r in both} == {0}
    assert whole_seeds(one, "breast", extra=True) == []


def test_losses_are_paired_by_seed_and_the_verdict_counts_sizes():
    found = made_up_rows()
    assert values(found[::-1], VIT, 96) == pytest.approx([0.6, 0.59, 0.58])
    assert losses(found, VIT, 96, 128) == pytest.approx([0.2, 0.21, 0.22])
    verdict = verdict_table(found, StudyPlan().sides, 128).splitlines()
    # differences 10, 11 and 12 points: 11 ± 4.303 · 1 / √3
    assert verdict[2] == f"| ViT loses more than TiC by | {' | '.join(['+11.0 ± 2.5'] * 4)} | 4 of 4 |"
    assert verdict[3].endswith("| 0 of 4 |")  # as much is not more


def test_growth_is_a_power_of_the_area(tmp_path):
    found = [GrowthRow(TIC, side, 3.0 * side**2, side**2 / 7) for side in (256, 512, 1024)]
    found += [GrowthRow(PLAIN_VIT, side, side**4 / 9, None) for side in (256, 512)]
    append_growth(tmp_path / "growth.jsonl", found)
    assert read_growth(tmp_path / "growth.jsonl") == found
    assert exponents(found, "milliseconds") == pytest.approx({TIC: 1.0, PLAIN_VIT: 2.0})
    assert exponents(found, "mebibytes") == pytest.approx({TIC: 1.0})
    assert "| – | 2.00 | – |" in growth_table(found)  # no plain attention at the largest size


def test_plain_and_memory_efficient_attention_are_one_function():
    image = torch.randn(1, 3, 96, 96)
    plain, efficient = growth_net(PLAIN_VIT), growth_net(VIT)
    assert not any(m.fused_attn for m in plain.modules() if hasattr(m, "fused_attn"))
    with torch.inference_mode():
        torch.testing.assert_close(plain(image), efficient(image), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_time_and_memory_are_measured_in_turns_and_apart():
    found = measure_growth(64, largest_plain=32)
    assert [r.net for r in found] == [name for name in GROWING if name != PLAIN_VIT]
    assert all(r.side == 64 and r.milliseconds > 0 for r in found)


def test_the_page_tells_command_tables_and_pictures(tmp_path):
    found = made_up_rows()
    growth = [GrowthRow(net, side, side**2 / 1e3, side**2 / 1e4) for net in GROWING for side in (256, 512)]
    page = tmp_path / "docs" / "tic_study.md"
    notes = tmp_path / "notes.md"
    notes.write_text("TiC does not win everywhere.\n")
    words = ["DATA", "-o", "OUT", "--seeds", "0", "--grow", "--write-docs", str(page), "--notes", str(notes)]
    write_study(page, found, growth, StudyPlan(), words, notes)
    text = page.read_text()
    assert "`python -m monai_effsam.studies.tic DATA -o OUT`" in text
    assert "TiC does not win everywhere." in text
    assert "### breast" in text
    assert "### modality" not in text
    assert "| TiC | 1,000 | 0.800 ± 0.000 | 0.700 ± 0.000 | 0.900 ± 0.000 | 0.800 ± 0.000 | 2 |" in text
    assert "| TiC − ViT | +0.000 ± 0.000 |" in text
    assert "| ViT: loss, points | +21.0 |  | +21.0 |" in text
    assert "{" not in text
    for ending in ("nets", "sizes", "growth"):
        svg = page.with_name(f"tic_study_{ending}.svg").read_text()
        assert svg.startswith("<svg xmlns")
        assert f"tic_study_{ending}.svg" in text
        assert "nan" not in svg


def test_done_runs_are_passed_over_and_seeds_come_one_after_the_other(tmp_path, monkeypatch):
    data, out, page = write_busi(tmp_path / "data"), tmp_path / "out", tmp_path / "page.md"
    asked = []

    def fake(task, net, seed, plan, images):
        if len(asked) == stop:
            raise KeyboardInterrupt
        asked.append((seed, net))
        return [row(net, seed, side, 0.7) for side in plan.sides]

    monkeypatch.setattr(runs, "run_study", fake)
    words = [str(data), "-o", str(out), "--task", "breast", "--seeds", "2", "--grow"]
    stop = 7
    with pytest.raises(KeyboardInterrupt):
        main(words)
    stop = -1
    assert main([*words, "--write-docs", str(page)]) == 0
    assert asked == [(seed, net) for seed in (0, 1) for net in TASK_NETS["breast"]]
    assert len(read_rows(out / "rows.jsonl")) == 10 * 5
    assert "2 seeds" in page.read_text()
    assert main([*words[:-3], "--seeds", "0", "--grow", "--write-docs", str(page)]) == 0
    assert len(asked) == 10


def test_rows_of_another_plan_are_not_mixed_in(tmp_path, capsys):
    words = [str(tmp_path), "-o", str(tmp_path / "out"), "--seeds", "0", "--grow"]
    assert main([*words, "--steps", "40"]) == 0
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["steps"]["breast"] == 40
    assert main([*words, "--steps", "50"]) == 2
    assert "made by another plan" in capsys.readouterr().err
