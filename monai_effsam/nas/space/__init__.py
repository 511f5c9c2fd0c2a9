# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a search may choose: operations, architectures, spaces of them.

`Architecture` and the operations live in `monai_effsam.networks`, which builds networks from them and may not import
this room; they are named here too, for who searches.
"""

from monai_effsam.nas.space.files import read_architecture, write_architecture
from monai_effsam.nas.space.predefined import SPACES, find_space
from monai_effsam.nas.space.search_space import SearchChoice, SearchSpace, StageChoices
from monai_effsam.networks.blocks.operations import OPERATIONS, SKIP, Operation, build_operation
from monai_effsam.networks.encoders.architecture import Architecture, DecoderShape, NeckShape, StageShape

__all__ = [
    "OPERATIONS",
    "SKIP",
    "SPACES",
    "Architecture",
    "DecoderShape",
    "NeckShape",
    "Operation",
    "SearchChoice",
    "SearchSpace",
    "StageChoices",
    "StageShape",
    "build_operation",
    "find_space",
    "read_architecture",
    "write_architecture",
]
