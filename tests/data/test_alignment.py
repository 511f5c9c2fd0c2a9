# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A teacher's embedding on its student's grid: marked corners stay corners, whatever the two specs are."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_effsam.checkpoints import FAMILIES
from monai_effsam.data.alignment import align_embedding, picture_cells
from monai_effsam.data.placement import apply_spec
from monai_effsam.errors import ShapeError
from monai_effsam.specs import ImageSpec

PLAIN = {"intensity": "uint8", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "auto"}
SPECS = {  # a quarter of the real sizes, with the same grids; what is kept is how a picture is fitted in
    "sam": replace(FAMILIES["sam"].spec, size=256, stride=4, **PLAIN),
    "medsam": replace(FAMILIES["medsam"].spec, size=256, stride=4, **PLAIN),
    "lite_medsam": replace(FAMILIES["lite_medsam"].spec, size=64, stride=1, **PLAIN),
    "light": ImageSpec(80, stride=4, **PLAIN),
    "kd_sam": ImageSpec(64, stride=2, **PLAIN),
}
PAIRS = list(itertools.product(SPECS, repeat=2))


def embedded(picture, spec):
    """Mean colour of each cell: what a network that only looks would give."""
    image, placement = apply_spec(picture, spec)
    return F.avg_pool2d(torch.from_numpy(image), spec.stride), placement


def marked(height, width):
    """Soft blobs near the corners: red top left, green top right, blue bottom left, all bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    reach = min(height, width) // 10
    for x, y, colour in (
        (reach, reach, (255, 0, 0)),
        (width - reach, reach, (0, 255, 0)),
        (reach, height - reach, (0, 0, 255)),
        (width - reach, height - reach, (255, 255, 255)),
    ):
        cv2.circle(picture, (x, y), reach, colour, -1)
    return cv2.GaussianBlur(picture, (0, 0), reach / 3)


@pytest.mark.parametrize("size", [(280, 400), (400, 240)])
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_marked_corners_stay_where_they_are(teacher, student, size):
    picture = marked(*size)
    theirs, placed = embedded(picture, SPECS[teacher])
    ours, place = embedded(picture, SPECS[student])
    grid = (SPECS[student].grid,) * 2
    found = align_embedding(theirs, placed, place, grid)
    valid = picture_cells(place, grid)
    assert found.shape == (3, *grid)
    rows, columns = (torch.nonzero(valid[0].any(axis)).flatten()[-1].item() + 1 for axis in (1, 0))
    halves = [(slice(0, n // 2), slice(n // 2, n)) for n in (rows, columns)]
    for row, column in itertools.product(*halves):
        for channel in range(3):
            a, b = (x[channel, row, column] for x in (found, ours))
            if b.max() > 0.3:
                centres = [_centre(x) for x in (a, b)]
                assert np.abs(centres[0] - centres[1]).max() < 0.3  # of a cell
    gap = ((found - ours).abs() * valid).sum() / valid.sum() / 3
    assert gap < 0.01


def _centre(x):
    places = torch.stack(torch.meshgrid(*(torch.arange(s).float() for s in x.shape), indexing="ij"))
    return ((places * x).sum((1, 2)) / x.sum()).numpy()


@pytest.mark.parametrize("name", SPECS)
def test_equal_specs_change_nothing_at_all(name):
    spec = SPECS[name]
    embedding = torch.randn(5, spec.grid, spec.grid)
    place = spec.place((300, 400))
    assert torch.equal(align_embedding(embedding, place, place, (spec.grid, spec.grid)), embedding)


def test_frames_that_agree_need_a_plain_resize_only():
    embedding = torch.randn(4, 64, 64)
    theirs, ours = SPECS["sam"].place((512, 512)), SPECS["light"].place((512, 512))
    plain = F.interpolate(embedding[None], size=(20, 20), mode="bilinear", antialias=True)[0]
    assert torch.equal(align_embedding(embedding, theirs, ours, (20, 20)), plain)


def test_by_hand_a_wide_picture_from_longest_to_stretch():
    """2:1 in a square of four: rows 0 and 1 hold the picture, the padding has no say."""
    longest, stretch = ImageSpec(4, "longest", stride=1), ImageSpec(4, stride=1)
    embedding = torch.tensor([0.0, 8.0, 100.0, 100.0]).view(1, 4, 1).expand(1, 4, 4)
    found = align_embedding(embedding, longest.place((40, 80)), stretch.place((40, 80)), (4, 4))
    assert found[0, :, 0].tolist() == [0.0, 2.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [((50, 100), 2, 4), ((100, 100), 4, 4), ((100, 30), 4, 1), ((1, 100), 0, 4)]
)
def test_cells_of_the_padding_are_told(size, rows, columns):
    valid = picture_cells(ImageSpec(64, "longest").place(size), (4, 4))
    assert valid.shape == (1, 4, 4)
    assert valid[0, :rows, :columns].all()
    assert valid.sum() == rows * columns


def test_two_pictures_are_refused():
    spec = ImageSpec(32)
    with pytest.raises(ShapeError, match="expected"):
        align_embedding(torch.zeros(1, 2, 2), spec.place((9, 9)), spec.place((9, 8)), (2, 2))
