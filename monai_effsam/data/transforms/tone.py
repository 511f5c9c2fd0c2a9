# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Random brightness, contrast, gamma, colour, blur, noise and recompression of 8-bit pictures."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from monai_effsam.data.augmentation import Augmentation

__all__ = ["RandDegraded", "RandToned"]


class RandToned(RandomizableTransform, MapTransform):
    """Random gain, offset, gamma and colour balance, as one look-up table a channel.

    Args:
        keys: (H, W, 3) uint8 pictures.
        ranges: how far to go.
        prob: probability of a change.
    """

    def __init__(self, keys: KeysCollection, ranges: Augmentation, prob: float = 0.8) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ranges = ranges
        self._table: npt.NDArray[np.uint8] = np.zeros((256, 1, 3), np.uint8)

    def randomize(self, data: Any = None) -> None:
        """Draw the table, (256, 1, 3)."""
        super().randomize(None)
        r, draw = self.ranges, self.R
        level = np.linspace(0, 1, 256)[:, None] ** (r.gamma ** draw.uniform(-1, 1))
        level = (level - 0.5) * (1 + draw.uniform(-r.gain, r.gain)) + 0.5 + draw.uniform(-r.offset, r.offset)
        level = level * (1 + draw.uniform(-r.colour, r.colour, 3))
        self._table = np.clip(level * 255 + 0.5, 0, 255).astype(np.uint8)[:, None]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same dictionary with changed pictures."""
        out = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(out):
                out[key] = cv2.LUT(out[key], self._table.reshape(1, 256, 3))
        return out


class RandDegraded(RandomizableTransform, MapTransform):
    """Random blur, noise and JPEG recompression, each with its own chance, so that no set's habits are learnt.

    Args:
        keys: (H, W, 3) uint8 pictures.
        prob: probability of each of the three.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.15) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.chance = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same dictionary with degraded pictures."""
        out = dict(data)
        blur, noise, squeeze = self.R.rand(3) < self.chance
        for key in self.key_iterator(out):
            image = out[key]
            if blur:
                image = cv2.GaussianBlur(image, (0, 0), self.R.uniform(0.4, 1.5))
            if noise:
                grain = self.R.randn(*image.shape[:2], 1) * self.R.uniform(2, 12)
                image = np.clip(image + grain, 0, 255).astype(np.uint8)
            if squeeze:
                quality = int(self.R.randint(30, 90))
                packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                image = cv2.imdecode(packed, cv2.IMREAD_COLOR)
            out[key] = image
        return out
