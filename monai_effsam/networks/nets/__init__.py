# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Whole models, one file a paper; they assemble parts and hold no layers of their own."""

from monai_effsam.networks.nets.esp_medsam import Decoded, EspMedSam

__all__ = ["Decoded", "EspMedSam"]
