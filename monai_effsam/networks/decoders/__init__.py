# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Decoders: embedding and prompts -> masks."""

from monai_effsam.networks.decoders.query_decoupled import QueryDecoded, QueryDecoupledDecoder
from monai_effsam.networks.decoders.upscaling import SkipUpscaling, plain_upscaling

__all__ = ["QueryDecoded", "QueryDecoupledDecoder", "SkipUpscaling", "plain_upscaling"]
