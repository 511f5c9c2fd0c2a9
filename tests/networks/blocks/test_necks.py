# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The neck is segment-anything's."""

import torch

from monai_effsam.networks.blocks import SamNeck
from monai_effsam.networks.foreign import import_segment_anything


def test_neck_equals_that_of_segment_anything():
    modeling = import_segment_anything().modeling
    theirs = modeling.ImageEncoderViT(img_size=16, embed_dim=8, depth=0, num_heads=1, out_chans=4).neck
    torch.manual_seed(0)
    ours = SamNeck(8, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 8, 5, 7)
    torch.testing.assert_close(ours(x), theirs(x))
