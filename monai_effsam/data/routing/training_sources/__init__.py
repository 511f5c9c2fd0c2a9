# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of further archives, hospitals and devices that the modality router can learn from: where they are.

Nothing of them is in this package. Each row names a public repository that a user can clone. None is of an archive that
routers are judged on (`evaluation/routing/source_table.py`). Some pictures of the series of repositories are copies
that these have turned or warped; they are left in, as every view is varied anyway.
"""

from __future__ import annotations

from monai_effsam.data.routing.clones import RoutingSource
from monai_effsam.data.routing.training_sources.colour import COLOUR
from monai_effsam.data.routing.training_sources.ct import CT
from monai_effsam.data.routing.training_sources.foreign import FOREIGN
from monai_effsam.data.routing.training_sources.mr import MR
from monai_effsam.data.routing.training_sources.planar import PLANAR

__all__ = ["TRAINING_SOURCES"]

TRAINING_SOURCES: tuple[RoutingSource, ...] = COLOUR + PLANAR + CT + MR + FOREIGN
"""In the order of the documentation: endoscopy, dermoscopy, fundus, ultrasound, X-ray, CT, MR, foreign."""
