# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Image encoders: image -> embedding. Who adds one adds a file here and a line below."""

from monai_effsam.networks.encoders.architecture import (
    NECK_KINDS,
    SIZE_STEP,
    Architecture,
    DecoderShape,
    NeckShape,
    StageShape,
)
from monai_effsam.networks.encoders.contract import (
    ENCODERS,
    Encoded,
    ImageEncoder,
    build_encoder,
    register_encoder,
)
from monai_effsam.networks.encoders.sam_vit import SamVitEncoder
from monai_effsam.networks.encoders.searched import SearchedEncoder
from monai_effsam.networks.encoders.tic import TicEncoder
from monai_effsam.networks.encoders.tic_trunk import TIC_SIZES, TicSize, TicTrunk
from monai_effsam.networks.encoders.timm_encoder import TimmEncoder, fold_batch_norm
from monai_effsam.networks.encoders.timm_pyramid import TimmPyramidEncoder
from monai_effsam.networks.encoders.timm_sam_neck import TimmSamNeckEncoder
from monai_effsam.networks.encoders.tiny_vit import TinyVitEncoder

__all__ = [
    "ENCODERS",
    "NECK_KINDS",
    "SIZE_STEP",
    "TIC_SIZES",
    "Architecture",
    "DecoderShape",
    "Encoded",
    "ImageEncoder",
    "NeckShape",
    "SamVitEncoder",
    "SearchedEncoder",
    "StageShape",
    "TicEncoder",
    "TicSize",
    "TicTrunk",
    "TimmEncoder",
    "TimmPyramidEncoder",
    "TimmSamNeckEncoder",
    "TinyVitEncoder",
    "build_encoder",
    "fold_batch_norm",
    "register_encoder",
]
