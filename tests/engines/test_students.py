# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Students by name: their sizes, what they take from the teacher, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from monai_effsam.engines.students import (
    STUDENTS,
    Student,
    build_student,
    decoder_shape,
    find_student,
    student_of,
)
from monai_effsam.engines.teacher import load_teacher
from monai_effsam.errors import DataError, UnknownNameError, UsageError, WeightsError
from monai_effsam.networks.encoders import Architecture, DecoderShape, StageShape
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ImageSpec

SMALL = Student({"name": "timm_pyramid", "model": "mobilenetv3_small_050"}, ImageSpec(64))
DECODER = 4_064_560
"""segment-anything's prompt encoder and mask decoder."""


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("random").network


@pytest.fixture(scope="module")
def sam():
    """A teacher with a decoder of SAM's size."""
    return PromptableSam(SMALL.encoder)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "encoder", "grid"),
    [
        ("kd_sam_resnet50", 24_623_168, 32),
        ("kd_sam_resnet50_n6", 26_394_176, 32),
        ("kd_sam_resnetv2_50", 9_392_832, 32),
        ("tiny_vit", 5_743_892, 32),
        ("light", 4_171_248, 20),
    ],
)
def test_students_have_the_size_that_is_told(name, encoder, grid, sam):
    student = find_student(name)
    with torch.device("meta"):
        network = PromptableSam(student.encoder)
    assert student.spec.grid == grid
    assert network.image_encoder.stride == student.spec.stride
    assert count(network.image_encoder) == encoder
    assert count(network) == encoder + DECODER


def test_every_student_is_tested():
    assert STUDENTS.keys() == {
        "kd_sam_resnet50",
        "kd_sam_resnet50_n6",
        "kd_sam_resnetv2_50",
        "tiny_vit",
        "light",
    }


def test_any_timm_trunk_is_a_student():
    student = find_student("repvit_m0_9", 128)
    assert student.encoder == {"name": "timm_pyramid", "model": "repvit_m0_9", "stride": 8}
    assert (student.spec.size, student.spec.stride) == (128, 8)
    assert student.spec.mean == (0.485, 0.456, 0.406)


def test_a_recipe_is_a_student(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"encoder": SMALL.encoder, "spec": {"size": 96, "resize": "longest"}}))
    assert find_student(str(file)) == Student(SMALL.encoder, ImageSpec(96, "longest"))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("not json", UsageError, "describes no student"),
        ('{"encoder": {"name": "timm_pyramid"}}', UsageError, "KeyError: 'spec'"),
        ('{"encoder": {"name": "timm_pyramd"}, "spec": {"size": 64}}', UnknownNameError, "timm_pyramid"),
    ],
)
def test_a_recipe_that_is_none_is_refused(tmp_path, content, error, message):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(error, match=message):
        find_student(str(file))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'light'"):
        find_student("lihgt")


def test_decoder_and_prompt_encoder_are_the_teachers(teacher):
    network, options = build_student(SMALL, teacher)
    for part in ("prompt_encoder", "mask_decoder"):
        ours, theirs = (getattr(n, part).state_dict() for n in (network, teacher))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert not options["drawn"]
    again = PromptableSam(**options)
    again.load_state_dict(network.state_dict())


def test_prompts_are_drawn_where_the_teachers_are():
    drawing = PromptableSam(SMALL.encoder, mlp_dim=64, drawn=True)
    assert build_student(SMALL, drawing)[0].drawn
    assert not build_student(replace(SMALL, drawn=False), drawing)[0].drawn


def test_the_rest_is_the_same_for_a_seed(teacher):
    nets = [build_student(SMALL, teacher, seed=seed)[0].image_encoder.neck[1].weight for seed in (0, 0, 1)]
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_the_like_encoder_may_start_as_its_teachers(teacher):
    like = PromptableSam(SMALL.encoder)
    network, _ = build_student(SMALL, like, inherit=True)
    ours, theirs = network.state_dict(), like.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    fresh = build_student(SMALL, like)[0].image_encoder.state_dict()
    assert not torch.equal(fresh["neck.1.weight"], ours["image_encoder.neck.1.weight"])
    other = Student({"name": "tiny_vit"}, ImageSpec(64))
    with pytest.raises(WeightsError, match="none of its encoder's tensors fits"):
        build_student(other, like, inherit=True)


def test_of_a_self_prompting_teacher_the_decoder_is_left_as_it_is():
    esp = EspMedSam({"name": "timm", "model": "mobilenetv3_small_050", "heads": 2})
    network, options = build_student(SMALL, esp)
    assert options["mlp_dim"] == 2048
    assert options["drawn"]
    assert count(network.mask_decoder) > 4e6


@pytest.mark.parametrize("model", ["mobilenetv3_small_050", "repvit_m0_9"])
def test_a_trunk_takes_timms_weights_whatever_features_only_calls_its_layers(teacher, tmp_path, model):
    torch.manual_seed(5)
    plain = import_timm().create_model(model, num_classes=0).eval()
    file = tmp_path / "trunk.safetensors"
    save_file({k: v for k, v in plain.state_dict().items() if "num_batches" not in k}, file)
    student = Student({"name": "timm_pyramid", "model": model}, ImageSpec(64))
    encoder = build_student(student, teacher, file)[0].image_encoder.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        deepest = plain.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(encoder.trunk(image)[-1], deepest)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("light", "tf_efficientnet_lite0_in1k_features"),
        ("kd_sam_resnetv2_50", "resnetv2_50_in1k_stem_to_c4"),
        ("mobilenetv2_100", "mobilenetv2_100_in1k_features"),
    ],
)
def test_the_weights_at_hand_fit(teacher, shared, name, file):
    network, _ = build_student(find_student(name), teacher, shared / "weights" / f"{file}.safetensors")
    norms = [m for m in network.image_encoder.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(float(norm.running_var.std()) > 0 for norm in norms)


def test_what_does_not_fit_is_refused(teacher, tmp_path):
    narrow = Student({**SMALL.encoder, "embed_channels": 32}, SMALL.spec)
    with pytest.raises(WeightsError, match="its embedding has 256 channels, expected the student's 32"):
        build_student(narrow, teacher)
    with pytest.raises(UsageError, match="size is 80 and stride 16, expected a multiple of 32"):
        build_student(Student(SMALL.encoder, ImageSpec(80)), teacher)
    with pytest.raises(UsageError, match=r"cannot be built \(.*modle"):
        build_student(Student({"name": "timm_pyramid", "modle": "x"}, SMALL.spec), teacher)
    with pytest.raises(UsageError, match="student light: ImageSpec: size is 100"):
        find_student("light", 100)
    save_file({"conv_stem.weight": torch.zeros(3)}, tmp_path / "t.safetensors")
    with pytest.raises(WeightsError, match="tensors of the trunk"):
        build_student(SMALL, teacher, tmp_path / "t.safetensors")


def test_tissue_is_shown_as_the_teacher_wants_it():
    teacher = {"": ImageSpec(384), "ct": ImageSpec(384, intensity="tissue")}
    specs = SMALL.specs(teacher)
    assert specs == {"": ImageSpec(64), "ct": ImageSpec(64, intensity="tissue")}


SEARCHED = Architecture(
    (StageShape(8, 16, ("dwsep_k3",)), StageShape(16, 32)), size=64, decoder=DecoderShape(depth=1, mlp_dim=64)
)


def test_an_architecture_is_a_student_with_its_own_decoder(tmp_path, sam):
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps(SEARCHED.to_json()))
    student = find_student(str(file))
    assert student == student_of(SEARCHED)
    assert (student.spec.size, student.spec.stride) == (64, 16)
    network, options = build_student(student, sam)
    assert decoder_shape(network) == {"mlp_dim": 64, "decoder_depth": 1}
    theirs, key = sam.state_dict(), "mask_decoder.transformer.layers.0.self_attn.q_proj.weight"
    assert torch.equal(network.state_dict()[key], theirs[key])
    again = PromptableSam(**options)
    again.load_state_dict(network.state_dict())


def test_an_architecture_that_cannot_be_built_is_no_student(tmp_path):
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({**SEARCHED.to_json(), "stride": 32}))
    with pytest.raises(DataError, match=r"architecture\.json: .*stride is 32"):
        find_student(str(file))
    file.write_text(
        json.dumps({**SEARCHED.to_json(), "stages": [{"stride": 8, "width": 16, "ops": ["conv"]}]})
    )
    with pytest.raises(DataError, match=r"architecture\.json: .*operation 'conv' is unknown"):
        find_student(str(file))
