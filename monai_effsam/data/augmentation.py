# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How strongly each modality's pictures are varied in training: plain numbers, no code."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AUGMENTATIONS", "Augmentation"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges of the random variations of one modality.

    Args:
        flip_x: mirror left and right half of the time. Off where sides have names (kidneys, ventricles).
        flip_y: mirror top and bottom half of the time.
        quarter_turns: turn by 0, 90, 180 or 270 degrees.
        rotate: largest rotation [degrees].
        zoom: largest factor of size, applied as zoom**uniform(-1, 1).
        stretch: the same for the aspect ratio.
        shift: largest shift as a fraction of the side.
        elastic: largest standard deviation of a smooth random displacement, as a fraction of the side. For small sets
            of soft organs: eighteen abdomens are learnt by heart without it.
        gain: largest relative change of contrast.
        offset: largest change of brightness, as a fraction of full scale.
        gamma: largest factor of gamma, as for zoom.
        colour: largest relative change of each colour channel.
        degrade: probability of blur, noise or recompression, each.
    """

    flip_x: bool = True
    flip_y: bool = False
    quarter_turns: bool = False
    rotate: float = 20.0
    zoom: float = 1.3
    stretch: float = 1.15
    shift: float = 0.08
    elastic: float = 0.0
    gain: float = 0.25
    offset: float = 0.12
    gamma: float = 1.3
    colour: float = 0.0
    degrade: float = 0.15


AUGMENTATIONS: dict[str, Augmentation] = {
    "endoscopy": Augmentation(flip_y=True, quarter_turns=True, rotate=45, zoom=1.4, shift=0.12, colour=0.12),
    "ultrasound": Augmentation(rotate=15, zoom=1.3, stretch=1.25),
    "dermoscopy": Augmentation(
        flip_y=True, quarter_turns=True, rotate=45, zoom=1.35, stretch=1.3, colour=0.12
    ),
    "xray": Augmentation(rotate=12, zoom=1.25, stretch=1.2),
    "fundus": Augmentation(flip_y=True, quarter_turns=True, rotate=45, zoom=1.3, colour=0.12),
    "ct": Augmentation(
        flip_x=False, rotate=15, zoom=1.35, stretch=1.25, elastic=0.025, gain=0.35, offset=0.15, gamma=1.5
    ),
    "mr": Augmentation(flip_x=False, rotate=25, zoom=1.3, stretch=1.2, elastic=0.02, gain=0.35, gamma=1.5),
}
