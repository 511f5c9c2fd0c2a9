# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The MONAI Label app: images of a folder or a PACS to masks, labels, and a model that learns from them.

    viewer -> server -> LabellingApp -> service -> Segmenter
                             +-> store, trainer, strategies

Only this room knows `monailabel`; it is imported when `LabellingApp` is asked for, not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_effsam.labelling.app import LabellingApp

__all__ = ["LabellingApp"]


def __getattr__(name: str) -> Any:
    """`LabellingApp`, at the first use: `monailabel` takes seconds to import."""
    if name == "LabellingApp":
        from monai_effsam.labelling.app import LabellingApp

        return LabellingApp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
