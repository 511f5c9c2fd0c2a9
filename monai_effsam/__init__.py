# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Efficient, universal, self-prompting medical image segmentation for MONAI.

Importing this package is cheap: torch and MONAI are loaded by the rooms that need them
(`monai_effsam.networks`, `.losses`, `.engines`, `.inference` ...).
"""

__version__ = "0.1.0"
