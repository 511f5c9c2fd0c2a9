# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Promptable models behind the `Segmenter`: geometry, names, refusals, and the same answer in every runtime."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from monai_effsam.checkpoints import load_checkpoint, load_model
from monai_effsam.errors import UnknownNameError, UsageError
from monai_effsam.inference import Segmenter, outline_prompted
from monai_effsam.inference.export import export_model
from monai_effsam.inference.runtimes import RUNTIMES
from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime
from monai_effsam.specs import ImageSpec, Prompts
from monai_effsam.targets import TARGETS, Target, prompted_target

SIDE = 64
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "pad_value": 1.0}
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


class BrightInBox(nn.Module):
    """Outlines what is bright within the box, or within 12 pixels of the first point, at full size."""

    def __init__(self, prompt_size: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.scale = SIDE / (prompt_size or SIDE)
        self.seen: list[torch.Tensor] = []

    def encode(self, image: torch.Tensor) -> Any:
        self.seen.append(image)
        return SimpleNamespace(embedding=image.mean(1, keepdim=True), skips=())

    def decode(
        self, encoded: Any, *, points: Any = None, labels: Any = None, boxes: Any = None, multimask: bool
    ) -> Any:
        y, x = torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 2, indexing="ij")
        if boxes is not None:
            x0, y0, x1, y1 = boxes[0, 0] * self.scale
            asked = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        else:
            (px, py), inside = points[0, 0, 0] * self.scale, labels[0, 0, 0] == 1
            asked = ((x - px) ** 2 + (y - py) ** 2 < 144) & inside
        bright = (encoded.embedding[0, 0] > 0.5) & asked
        logits = torch.where(bright, 6.0, -6.0)[None, None, None]
        return SimpleNamespace(mask_logits=logits, quality=torch.full((1, 1, 1), 1.25))


def segmenter_of(*specs: ImageSpec, targets: tuple[Target, ...] = TARGETS) -> Segmenter:
    """The second spec is that of CT."""
    model: Any = SimpleNamespace(
        network=BrightInBox(specs[0].prompt_size),
        specs=dict(zip(("", "ct"), specs, strict=False)),
        targets=targets,
        card={},
        path=Path("model.pt"),
        promptable=True,
    )
    return Segmenter(TorchRuntime(model))


def marked(size: tuple[int, int], row: int, column: int) -> tuple[np.ndarray, tuple[slice, slice], Prompts]:
    """A dark picture with a bright block in one corner, the block, and a box that frames just this corner."""
    height, width = size
    rows = slice(0, height // 4) if row == 0 else slice(height - height // 4, height)
    columns = slice(0, width // 4) if column == 0 else slice(width - width // 4, width)
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[rows, columns] = 255
    return rgb, (rows, columns), Prompts(box=(columns.start, rows.start, columns.stop, rows.stop))


@pytest.mark.parametrize("size", [(256, 512), (512, 256), (200, 200)])
@pytest.mark.parametrize("rule", ["direct", "frame", "probability"])
@pytest.mark.parametrize("prompt_size", [None, 128])
@pytest.mark.parametrize("resize", ["longest", "stretch"])
def test_a_marked_corner_comes_back_where_it_was(resize, prompt_size, rule, size):
    spec = ImageSpec(SIDE, resize, **PLAIN, prompt_size=prompt_size, mask_rule=rule)
    segmenter = segmenter_of(spec)
    for row, column in CORNERS.values():
        rgb, block, prompts = marked(size, row, column)
        mask = segmenter.decode(segmenter.encode_slices([rgb]), prompts=prompts).mask[0]
        expected = np.zeros(size, bool)
        expected[block] = True
        assert (mask[expected] == 1).mean() > 0.9
        assert (mask[~expected] == 0).mean() > 0.99
        other = marked(size, 1 - row, column)[2]
        assert not segmenter.decode(segmenter.encode_slices([rgb]), prompts=other).mask.any()


def test_a_point_reaches_the_network_in_its_own_pixels():
    rgb = np.full((100, 200, 3), 255, np.uint8)
    for rule in ("exact", "truncated"):
        segmenter = segmenter_of(ImageSpec(SIDE, "longest", **PLAIN, prompt_rule=rule))
        prompts = Prompts(points=((150.0, 60.0),), labels=(1,))
        mask = segmenter.decode(segmenter.encode_slices([rgb]), prompts=prompts).mask[0]
        rows, columns = np.nonzero(mask)
        assert (rows.mean(), columns.mean()) == pytest.approx((60, 150), abs=4)


def test_one_encoding_takes_many_prompts():
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN))
    encoding = segmenter.encode_slices([np.full((64, 64, 3), 255, np.uint8)])
    small, large = (segmenter.decode(encoding, prompts=Prompts(box=(0, 0, n, n))) for n in (16, 32))
    assert np.count_nonzero(small.mask) == 16**2
    assert np.count_nonzero(large.mask) == 32**2
    assert len(segmenter.runtime.network.seen) == 1


def test_quality_is_cut_to_a_probability_and_a_prompted_object_is_there():
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN))
    found = segmenter.decode(
        segmenter.encode_slices([np.zeros((9, 9, 3), np.uint8)]), prompts=Prompts(box=(0, 0, 4, 4))
    )
    assert (found.quality.tolist(), found.presence.tolist()) == ([[1.0]], [[1.0]])


def test_a_modality_chooses_its_spec():
    segmenter = segmenter_of(ImageSpec(SIDE, "longest", **PLAIN), ImageSpec(SIDE, "stretch", **PLAIN))
    rgb = np.zeros((64, 128, 3), np.uint8)
    contents = [segmenter.encode_slices([rgb], name).placement.content for name in (None, "mr", "ct")]
    assert contents == [(32, 64), (32, 64), (64, 64)]


ULCER = Target("ulcer", "endoscopy", 99, (1, 2, 3), "1", "Ulcer")
NAMES = {
    "nothing told": (None, None, ("object", 1)),
    "one target": ("fundus", None, ("retinal_vessels", 6)),
    "several targets": ("ultrasound", None, ("object", 1)),
    "one of several": ("ultrasound", ["fetal_head"], ("fetal_head", 4)),
    "a name alone": (None, ["liver"], ("liver", 17)),
}


@pytest.mark.parametrize(("modality", "names", "expected"), NAMES.values(), ids=NAMES)
def test_a_mask_bears_the_value_of_what_was_named(modality, names, expected):
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN))
    encoding = segmenter.encode_slices([np.full((64, 64, 3), 255, np.uint8)], modality)
    found = segmenter.decode(encoding, targets=names, prompts=Prompts(box=(0, 0, 32, 64)))
    assert [(t.name, t.value) for t in found.targets] == [expected]
    assert set(np.unique(found.mask)) == {0, expected[1]}


def test_a_table_of_ones_own_knows_other_modalities_too():
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN), targets=(ULCER,))
    assert segmenter.modalities[0] == "endoscopy"
    assert "ct" in segmenter.modalities
    assert prompted_target(None, "endoscopy", (ULCER,)) == ULCER
    assert prompted_target(None, "ct", (ULCER,)).name == "object"
    assert prompted_target(["ulcer"], None, (ULCER,)) == ULCER


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"modality": "dermscopy"}, UnknownNameError, "Did you mean 'dermoscopy'"),
        ({"targets": ["livr"]}, UnknownNameError, "Did you mean 'liver'"),
        ({"modality": "fundus", "targets": ["polyp"]}, UsageError, "belongs to endoscopy, not to fundus"),
        (
            {"targets": ["liver", "spleen"]},
            UsageError,
            "2 targets are asked for, liver, spleen, expected one",
        ),
        (
            {"prompts": None},
            UsageError,
            r"model\.pt: this model outlines what it is prompted for.*--box or --point",
        ),
        ({"prompts": Prompts(box=(0, 0, 65, 5))}, UsageError, "X0 < X1 <= 64"),
    ],
    ids=["modality", "target", "elsewhere", "two", "no prompt", "outside"],
)
def test_a_wrong_request_is_refused(image, options, error, text):
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN))
    given = {"prompts": Prompts(box=(0, 0, 9, 9)), **options}
    with pytest.raises(error, match=text):
        segmenter.segment(image, given.pop("modality", None), **given)


def test_an_encoding_without_a_prompt_is_no_answer():
    segmenter = segmenter_of(ImageSpec(SIDE, **PLAIN))
    encoding = segmenter.encode_slices([np.zeros((9, 9, 3), np.uint8)] * 2)
    with pytest.raises(UsageError, match="outlines what it is prompted for"):
        segmenter.decode(encoding)
    with pytest.raises(UsageError, match="2 slices are encoded, expected one"):
        segmenter.decode(encoding, prompts=Prompts(box=(0, 0, 4, 4)))


def test_a_self_prompting_model_needs_a_modality(segmenter):
    with pytest.raises(UsageError, match="no modality is given, expected one of endoscopy"):
        segmenter.encode_slices([np.zeros((9, 9, 3), np.uint8)])


@pytest.fixture
def image(picture: Callable[..., Path]) -> Any:
    """A file read, 64 x 64."""
    from monai_effsam.data.io import read_image

    return read_image(picture(size=(64, 64)))


# Real networks


@pytest.fixture(scope="module")
def exported(tiny_promptable, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    return export_model(load_model(tiny_promptable), tmp_path_factory.mktemp("promptable") / "exported")


PROMPTS = {
    "box": Prompts(box=(5, 10, 70, 40)),
    "point": Prompts(((30.0, 20.0),), (1,)),
    "both": Prompts(((30.0, 20.0), (3.0, 3.0)), (1, 0), (5, 10, 70, 40)),
}


@pytest.mark.parametrize("modality", [None, "ct"])
@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_every_runtime_answers_as_torch_does(tiny_promptable, exported, runtime, modality):
    random = np.random.RandomState(0)
    rgb = random.randint(0, 255, (50, 80, 3)).astype(np.uint8)
    one, two = Segmenter.open(tiny_promptable), Segmenter.open(exported, runtime, threads=1)
    assert (one.promptable, two.promptable, two.runtime.name) == (True, True, runtime)
    assert (one.model.specs, one.model.targets) == (two.model.specs, two.model.targets)
    encodings = [segmenter.encode_slices([rgb], modality) for segmenter in (one, two)]
    for prompts in PROMPTS.values():
        left, right = (s.decode(e, prompts=prompts) for s, e in zip((one, two), encodings, strict=True))
        np.testing.assert_allclose(left.quality, right.quality, atol=1e-4)
        assert left.mask.any()
        assert (left.mask != right.mask).mean() < 1e-3
        assert left.targets == right.targets


def test_weights_of_others_are_segmented_with_as_their_family_wants(make_sam, tmp_path):
    path = tmp_path / "sam.pth"
    torch.save(make_sam(size=64).state_dict(), path)
    rgb = np.random.RandomState(0).randint(0, 255, (50, 80, 3)).astype(np.uint8)
    masks = []
    for family in ("sam", "medsam"):
        segmenter = Segmenter.open(path, family=family)
        assert segmenter.model.card["name"] == family
        found = segmenter.decode(segmenter.encode_slices([rgb]), prompts=PROMPTS["box"])
        runtime = TorchRuntime(load_checkpoint(path, family=family).model)
        masks.append(outline_prompted(runtime, rgb, PROMPTS["box"]).masks[0])
        np.testing.assert_array_equal(found.mask[0] == 1, masks[-1])
    assert (masks[0] != masks[1]).any()


def test_a_family_of_an_exported_model_is_refused(exported):
    with pytest.raises(UsageError, match=r"--family sam: .* is an exported model, expected none"):
        Segmenter.open(exported, family="sam")
