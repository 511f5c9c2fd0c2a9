# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Random flip, turn, zoom, aspect, shift and elastic deformation in one resampling, straight into the model's frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from monai_effsam.data.augmentation import Augmentation
from monai_effsam.specs import ImageSpec, Resize

__all__ = ["RandFrameWarpd"]

KNOTS = 6  # of the elastic displacement, along each side: bends of organ size


class RandFrameWarpd(RandomizableTransform, MapTransform):
    """One random map from the source picture to the model's square, affine or bent; nothing is resampled twice.

    Args:
        keys: (H, W, 3) or (H, W) uint8 arrays of one size.
        size: side of the square [px].
        ranges: how far to go.
        nearest: keys that hold labels.
        prob: probability of a random map; otherwise the picture is only fitted in.
        resize: how it is fitted in, as in `ImageSpec`: `stretch`, or `longest` with the rest at the right or bottom.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        ranges: Augmentation,
        nearest: KeysCollection = ("label",),
        prob: float = 1.0,
        resize: Resize = "stretch",
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.frame = ImageSpec(size, resize=resize, stride=1)
        self.size = size
        self.ranges = ranges
        self.nearest = (nearest,) if isinstance(nearest, str) else tuple(nearest)  # type: ignore[arg-type]
        self._turn = np.eye(2)
        self._shift = np.zeros(2)
        self._bend: npt.NDArray[np.float32] | None = None

    def randomize(self, data: Any = None) -> None:
        """Draw the linear part, the shift and the bend's knots, all in units of the frame."""
        super().randomize(None)
        self._turn, self._shift, self._bend = np.eye(2), np.zeros(2), None
        if not self._do_transform:
            return
        draw, r = self.R, self.ranges
        angle = np.deg2rad(draw.uniform(-r.rotate, r.rotate))
        if r.quarter_turns:
            angle += np.pi / 2 * draw.randint(4)
        zoom, stretch = r.zoom ** draw.uniform(-1, 1), r.stretch ** draw.uniform(-0.5, 0.5)
        flip = [
            -1.0 if r.flip_x and draw.rand() < 0.5 else 1.0,
            -1.0 if r.flip_y and draw.rand() < 0.5 else 1.0,
        ]
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._turn = rotation @ np.diag([zoom * stretch * flip[0], zoom / stretch * flip[1]])
        self._shift = draw.uniform(-r.shift, r.shift, 2)
        if r.elastic:
            knots = draw.uniform(0, r.elastic) * draw.randn(KNOTS, KNOTS, 2)
            self._bend = knots.astype(np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same dictionary with the keys warped to (size, size[, 3])."""
        out = dict(data)
        self.randomize()
        for key in self.key_iterator(out):
            height, width = out[key].shape[:2]
            rows, columns = self.frame.place((height, width)).content
            linear = self._turn @ np.diag([columns / width, rows / height])
            centre = np.array([columns / 2, rows / 2])
            # OpenCV puts pixel centres at integers; half a pixel each way keeps image and label in register
            offset = centre + self.size * self._shift - linear @ np.array([width / 2, height / 2])
            offset += linear @ np.array([0.5, 0.5]) - 0.5
            method = cv2.INTER_NEAREST if key in self.nearest else cv2.INTER_LINEAR
            affine = np.column_stack([linear, offset])
            out[key] = self._resampled(out[key], affine, method)
        return out

    def _resampled(self, array: Any, affine: npt.NDArray[np.float64], method: int) -> Any:
        """The array in the frame, by an affine map (2, 3) from its pixels to the frame's and then the bend."""
        if self._bend is None:
            return cv2.warpAffine(array, affine, (self.size, self.size), flags=method)
        inverse = cv2.invertAffineTransform(affine)
        places = np.indices((self.size, self.size), np.float32)[::-1].transpose(1, 2, 0)  # (x, y)
        places = places + self.size * cv2.resize(
            self._bend, (self.size, self.size), interpolation=cv2.INTER_CUBIC
        )
        sources = cv2.transform(places, inverse)
        return cv2.remap(array, sources, np.empty(0), method, borderMode=cv2.BORDER_CONSTANT)
