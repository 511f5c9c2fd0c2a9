# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Foreign pictures: what the modality router must call unknown.

Two families that have nothing in common, neither a kind of drawing nor a photograph: `learned` to train and calibrate
on, `kept` to test on. Photographs are those that ship inside scikit-image, scikit-learn and Matplotlib, where these
are installed; nothing is imported from them. scikit-image's fundus photographs (`retina.jpg`, `microaneurysms.png`)
are of a known modality, and its phantom is a CT slice in all but the patient; they are in neither family.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from monai_effsam.data.io import read_image
from monai_effsam.data.routing.foreign_kept import KEPT
from monai_effsam.data.routing.foreign_learned import LEARNED
from monai_effsam.data.routing.pictures import ModalityPicture, kept_size
from monai_effsam.errors import UnknownNameError

__all__ = ["Family", "drawn_picture", "drawn_pictures", "fundus_photographs", "photographs"]

Family = Literal["learned", "kept"]

_FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
_PHOTOGRAPHS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "learned": {
        "skimage": ("astronaut.png", "brick.png", "chelsea.png", "coins.png", "color.png", "hubble_deep_field.jpg",
                    "motorcycle_left.png", "text.png", "grass.png", "moon.png"),
        "sklearn": ("flower.jpg",),
    },
    "kept": {
        "skimage": ("camera.png", "cell.png", "clock_motion.png", "coffee.png", "gravel.png", "horse.png", "ihc.png",
                    "logo.png", "page.png", "rocket.jpg"),
        "sklearn": ("china.jpg",),
        "matplotlib": ("grace_hopper.jpg",),
    },
}  # fmt: skip


def photographs(family: Family) -> list[ModalityPicture]:
    """The photographs of a family that this installation has; none where those packages are missing."""
    files = _PHOTOGRAPHS[_checked(family)]
    return [
        ModalityPicture(picture, "", "photograph", path.stem)
        for package, names in files.items()
        for path in _shipped(package, names)
        for picture in [kept_size(read_image(path).rgb(0))]
    ]


def fundus_photographs() -> list[ModalityPicture]:
    """scikit-image's two fundus photographs, of a source that no set here holds; none where it is missing."""
    files = _shipped("skimage", ("retina.jpg", "microaneurysms.png"))
    return [ModalityPicture(kept_size(read_image(p).rgb(0)), "fundus", "skimage", p.stem) for p in files]


def drawn_picture(family: Family, random: np.random.RandomState) -> ModalityPicture:
    """One drawing of a family, of a random kind."""
    kinds = LEARNED if _checked(family) == "learned" else KEPT
    name = list(kinds)[random.randint(len(kinds))]
    return ModalityPicture(kinds[name](random), "", name, "")


def drawn_pictures(family: Family, each: int, seed: int = 0) -> list[ModalityPicture]:
    """`each` drawings of every kind of a family, the same for a seed."""
    kinds = LEARNED if _checked(family) == "learned" else KEPT
    return [
        ModalityPicture(draw(np.random.RandomState([seed, place, number])), "", name, f"{name}/{number}")
        for place, (name, draw) in enumerate(kinds.items())
        for number in range(each)
    ]


def _checked(family: str) -> str:
    if family not in get_args(Family):
        raise UnknownNameError("family", family, get_args(Family))
    return family


def _shipped(package: str, names: tuple[str, ...]) -> list[Path]:
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return [path for f in folders for name in names if (path := Path(f) / _FOLDERS[package] / name).is_file()]
