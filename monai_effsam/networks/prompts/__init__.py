# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Prompts: those of a user, and those that the network makes for itself."""

from monai_effsam.networks.prompts.point_box import PointBoxPrompter
from monai_effsam.networks.prompts.self_patch import SelfPatchPrompter, SelfPrompt

__all__ = ["PointBoxPrompter", "SelfPatchPrompter", "SelfPrompt"]
