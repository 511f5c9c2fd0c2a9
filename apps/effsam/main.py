# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The app of MONAI Label: `monailabel start_server --app apps/effsam` looks for a class here.

`effsam label --studies DIR` needs no app folder and starts our own server, which is the safe one.
"""

from monai_effsam.labelling import LabellingApp

__all__ = ["LabellingApp"]
