# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""SAM's ViT behind the contract: equal to segment-anything's own, at each size, and its refusals."""

import pytest
import torch

from monai_effsam.errors import ShapeError, SpecError
from monai_effsam.networks.encoders import SamVitEncoder

ZERO = torch.zeros(1, dtype=torch.int64)
SMALL = {"width": 32, "depth": 2, "heads": 2, "global_blocks": [1]}


@pytest.mark.parametrize(
    "size", [64, 224, 256, 320]
)  # less than a window, one window, more, no whole windows
def test_embeddings_equal_those_of_segment_anything(make_sam, size):
    theirs = make_sam(size=size).image_encoder
    ours = SamVitEncoder(size=size, **SMALL).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = ours(image, ZERO)
        torch.testing.assert_close(found.embedding, theirs(image))
    assert found.embedding.shape == (1, 256, size // 16, size // 16)
    assert found.skips == ()


def test_other_sizes_of_image_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(B, 3, 64, 64\)\. Apply the model's ImageSpec first"):
        SamVitEncoder(size=64, **SMALL)(torch.zeros(1, 3, 64, 96), ZERO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": 2}, "modalities is 2, expected 0"),
        ({"size": 100}, "size is 100 and width 32, expected multiples of 16"),
        ({"width": 33}, "width 33, expected multiples of 16 and of heads"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        SamVitEncoder(**{"size": 64, **SMALL, **options})
