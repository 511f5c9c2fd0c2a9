# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Views: variations of a picture that can be made again at any time, so that what a teacher made of them can be kept.

A view is an 8-bit picture in its own right; teacher and student each apply their own `ImageSpec` to it, so that
nothing of the one's size, padding or intensities reaches the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from monai.transforms import Compose

from monai_effsam.data.augmentation import AUGMENTATIONS, Augmentation
from monai_effsam.data.teacher_cache import content_key
from monai_effsam.data.transforms import RandDegraded, RandFrameWarpd, RandToned

__all__ = ["View", "make_view", "object_boxes", "view_key", "view_ranges"]

_VERSION = 1
"""To be raised when the same numbers make another view: what a teacher made of the old ones no longer fits."""


@dataclass(frozen=True, slots=True)
class View:
    """One view of a picture.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8, as in `LabelledSlice`.
        modality: name, empty where it is not known.
        key: of what it shows, for a cache.
        known: for each target of the modality, whether the label speaks of it.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    modality: str
    key: str
    known: tuple[bool, ...] = ()


def view_ranges(modality: str) -> Augmentation:
    """How far views of a modality go: less than in training on labels, since each view costs a teacher's pass.

    Quarter turns are off, since views keep the height and width of the picture, and bends, since a teacher that has
    never seen such pictures has little to say of them.

    Args:
        modality: name; of a modality that is not known nothing is mirrored.
    """
    known = AUGMENTATIONS.get(modality, Augmentation(flip_x=False))
    return replace(
        known,
        quarter_turns=False,
        rotate=min(known.rotate, 15.0),
        zoom=min(known.zoom, 1.25),
        stretch=min(known.stretch, 1.1),
        elastic=0.0,
        gain=0.2,
        offset=0.08,
        gamma=1.2,
        colour=min(known.colour, 0.08),
        degrade=0.05,
    )


def view_key(image: npt.NDArray[np.uint8], modality: str, number: int, seed: int = 0) -> str:
    """Key of a view, known without making it.

    Args:
        image: the picture, (H, W, 3) uint8.
        modality: name, which decides what a network with controllers makes of a picture.
        number: of the view; 0 for the picture itself, whatever the seed.
        seed: of the views.
    """
    ranges = asdict(view_ranges(modality)) if number else {}
    return content_key(image, f"{modality} {number} {seed if number else ''} {_VERSION} {ranges}")


def make_view(
    image: npt.NDArray[np.uint8],
    label: npt.NDArray[np.uint8],
    modality: str,
    number: int,
    seed: int = 0,
    known: tuple[bool, ...] = (),
) -> View:
    """View `number` of a picture: a pure function of its content, modality, the number and the seed.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8, warped with it.
        modality: name, empty where it is not known.
        number: 0 for the picture itself.
        seed: of all views.
        known: for each target of the modality, whether the label speaks of it.
    """
    key = view_key(image, modality, number, seed)
    if not number:
        return View(image, label, modality, key, known)
    digest = hashlib.sha256(key.encode()).digest()
    random = np.random.RandomState(np.frombuffer(digest, np.uint32))
    height, width = image.shape[:2]
    ranges = view_ranges(modality)
    # `longest` at the longest side leaves the pixels where they are; what lies outside the picture is cut off again
    steps = [
        RandFrameWarpd(("image", "label"), max(height, width), ranges, resize="longest"),
        RandToned("image", ranges),
        RandDegraded("image", ranges.degrade),
    ]
    chain = Compose(steps)
    for step in steps:  # after Compose, which seeds its transforms anew with MONAI's global seed
        step.set_random_state(state=random)
    item = chain({"image": image, "label": label})
    return View(
        np.ascontiguousarray(item["image"][:height, :width]),
        np.ascontiguousarray(item["label"][:height, :width]),
        modality,
        key,
        known,
    )


def object_boxes(label: npt.NDArray[np.uint8]) -> list[tuple[float, float, float, float]]:
    """The box around each target of a label, (x0, y0, x1, y1) [px], in the targets' order.

    Args:
        label: (H, W), 0 or 1 + the target's place.
    """
    boxes = []
    for value in np.unique(label[label > 0]):
        rows, columns = (np.flatnonzero((label == value).any(axis)) for axis in (1, 0))
        boxes.append((float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)))
    return boxes
