# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Search spaces by name. Widths are multiples of 16, maps are those of a picture of 256 px."""

from __future__ import annotations

from collections.abc import Mapping

from monai_effsam.errors import UnknownNameError
from monai_effsam.nas.space.search_space import SearchSpace, StageChoices

__all__ = ["SPACES", "find_space"]

_FEW = ("dwsep_k3", "dwsep_k5", "mbconv_k3_e2", "fused_k3_e1")
_FINE = ("dwsep_k3", "dwsep_k5", "mbconv_k3_e2", "fused_k3_e1", "fused_k3_e2", "grouped_k3")
_ALL = (
    "dwsep_k3", "dwsep_k5", "dwsep_k7", "dilated_k3_d2", "dilated_k5_d2",
    "mbconv_k3_e2", "mbconv_k3_e4", "mbconv_k5_e2", "mbconv_k5_e4", "mbconv_k7_e2", "mbconv_k7_e4",
    "fused_k3_e1", "fused_k3_e2", "grouped_k3", "pool_mixer", "linear_attention", "msa_conv_k3",
)  # fmt: skip

_LIGHT = ("dwsep_k3", "mbconv_k3_e2", "mbconv_k3_e4", "mbconv_k3_e6")
_WIDE = (
    "dwsep_k3", "dwsep_k5", "mbconv_k3_e2", "mbconv_k3_e4", "mbconv_k3_e6", "mbconv_k5_e2", "mbconv_k5_e4",
    "mbconv_k5_e6",
)  # fmt: skip

SPACES: Mapping[str, SearchSpace] = {
    space.name: space
    for space in (
        SearchSpace(
            "tiny",
            (
                StageChoices(8, (16, 32), 1, _FEW),
                StageChoices(16, (32, 64), 2, _FEW),
                StageChoices(32, (64, 96), 2, _FEW),
            ),
            stems=(8,),
            neck_widths=(32,),
            decoder_depths=(1, 2),
        ),
        SearchSpace(
            "small",
            (
                StageChoices(4, (16, 32), 1, _FINE),
                StageChoices(8, (32, 48, 64), 3, _ALL),
                StageChoices(16, (64, 96, 128), 4, _ALL),
                StageChoices(32, (96, 128, 192), 4, _ALL),
            ),
            stems=(4, 8),
            strides=(8, 16),
            neck_widths=(64, 96),
            decoder_depths=(1, 2),
        ),
        SearchSpace(
            "full",
            (
                StageChoices(4, (16, 32, 48), 2, _FINE),
                StageChoices(8, (32, 48, 64, 96), 3, _ALL),
                StageChoices(16, (64, 96, 128, 192), 6, _ALL),
                StageChoices(32, (96, 128, 192, 256), 6, _ALL),
            ),
            stems=(4, 8),
            strides=(4, 8, 16),
            neck_widths=(64, 96, 128),
            neck_kinds=("separable", "dense"),
            decoder_widths=(128, 256),
            decoder_depths=(1, 2),
            mlp_dims=(512, 1024),
        ),
        SearchSpace(
            "inherited",
            (
                StageChoices(4, (16, 24), 1, _LIGHT, "mbconv_k3_e6"),
                StageChoices(8, (24, 32, 40), 1, _WIDE, "mbconv_k5_e6"),
                StageChoices(16, (48, 64, 80), 2, _LIGHT, "mbconv_k3_e6"),
                StageChoices(16, (64, 96, 112), 2, _WIDE, "mbconv_k5_e6"),
                StageChoices(32, (96, 128, 192), 3, _WIDE, "mbconv_k5_e6"),
            ),
            strides=(8, 16),
            neck_widths=(64, 96),
            decoder_depths=(1, 2),
            trunk="inverted_same",
        ),
    )
}
"""Name -> space: `tiny` for a first look in minutes, `small` for two cores and an evening, `full` for a GPU;
`inherited` for parts of tf_efficientnet_lite0, which is its largest trunk but for the last block (320 channels).
"""


def find_space(name: str) -> SearchSpace:
    """The space of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SPACES:
        raise UnknownNameError("search space", name, SPACES)
    return SPACES[name]
