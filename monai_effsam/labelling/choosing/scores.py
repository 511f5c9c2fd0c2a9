# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the model thinks of an image that nobody has labelled: how unsure it is, and what the image looks like to it.

One encoder pass a slice. Disagreement compares the mask that the model makes by itself with the one that it makes of
the first mask's box; entropy is that of the mask's probabilities. Both need no label and no second network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.io import Image
from monai_effsam.inference.answers import Encoding
from monai_effsam.inference.runtimes.contract import PromptArrays, RawDecoding
from monai_effsam.inference.segmenter import PRESENT, Segmenter
from monai_effsam.metrics.overlap import dice_score
from monai_effsam.targets import narrowed_targets, targets_of

__all__ = ["Encode", "ImageScores", "pooled_embedding", "score_encoding", "score_image"]

SLICES = 3
"""Slices of a volume that are looked at."""

_FAINT = 0.05  # probability below which a pixel is no candidate


class ImageScores(NamedTuple):
    """Scores of one image.

    Attributes:
        disagreement: 1 - Dice of self-prompted and box-prompted masks, 0..1; where nothing is found, how undecided the
            model is that there is nothing.
        entropy: mean over the pixels that may belong to a target, 0..1 (bits).
        foreground: share of the pixels that are outlined, 0..1.
        pooled: (C,) float32, the mean embedding at length 1.
    """

    disagreement: float
    entropy: float
    foreground: float
    pooled: NDArray[np.float32]

    @property
    def doubt(self) -> float:
        """Disagreement and entropy together, 0..2."""
        return self.disagreement + self.entropy


Encode = Callable[[Image, int, str], Encoding]
"""Slice to encoding: `Segmenter.encode`, or a cache in front of it."""


def score_image(
    segmenter: Segmenter,
    image: Image,
    modality: str,
    encode: Encode | None = None,
    targets: Collection[str] | None = None,
) -> ImageScores:
    """Scores of an image; of a volume the most doubtful of a few slices, spread over its middle.

    Args:
        segmenter: self-prompting.
        image: from `read_image`.
        modality: of the image.
        encode: where encodings come from; the segmenter by default.
        targets: names of those that are labelled; all by default.
    """
    at = np.unique(np.linspace(0, len(image) - 1, SLICES + 2).round().astype(int)[1:-1])
    each = [
        score_encoding(segmenter, (encode or segmenter.encode)(image, int(n), modality), targets) for n in at
    ]
    pooled = _unit(np.mean([one.pooled for one in each], axis=0))
    worst = max(each, key=lambda one: one.doubt)
    return worst._replace(foreground=max(one.foreground for one in each), pooled=pooled)


def score_encoding(
    segmenter: Segmenter, encoding: Encoding, targets: Collection[str] | None = None
) -> ImageScores:
    """Scores of one encoded slice.

    Args:
        segmenter: self-prompting.
        encoding: of one slice, with its modality.
        targets: names of those that are labelled; all by default.
    """
    number = segmenter.modality_index(encoding.modality)
    raw = segmenter.runtime.decode(encoding.encoded, number, None)
    height, width = encoding.placement.content
    logits, presence = raw.mask_logits[0], raw.presence[0]
    rows = max(1, round(logits.shape[1] * height / encoding.placement.frame[0]))
    columns = max(1, round(logits.shape[2] * width / encoding.placement.frame[1]))
    logits = logits[:, :rows, :columns]  # the rest is padding
    table, modality = segmenter.model.targets, str(encoding.modality)
    every = targets_of(modality, table)
    asked = [every.index(target) for target in narrowed_targets(modality, targets, table)]
    found = [t for t in asked if presence[t] >= PRESENT and (logits[t] > 0).any()]
    probability = 1 / (1 + np.exp(-logits.astype(np.float32).clip(-30, 30)))
    if found:
        pixels = encoding.placement.frame[0] / raw.mask_logits.shape[2]
        apart = [_disagreement(segmenter, encoding, number, logits[t] > 0, t, pixels) for t in found]
        disagreement = float(np.mean(apart))
        entropy = float(np.mean([_entropy(probability[t]) for t in found]))
    else:
        top = float(presence[asked].max())
        disagreement = min(1.0, 2 * top)  # presence is below one half here
        entropy = float(_bits(np.array([top]))[0])
    inside = np.any([logits[t] > 0 for t in found], axis=0).mean() if found else 0.0
    return ImageScores(disagreement, entropy, float(inside), pooled_embedding(encoding.encoded))


def _disagreement(
    segmenter: Segmenter, encoding: Encoding, number: int, mask: NDArray[np.bool_], target: int, pixels: float
) -> float:
    """1 - Dice of a mask and of what the same embedding gives for its box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32) * np.float32(pixels)
    again: RawDecoding = segmenter.runtime.decode(encoding.encoded, number, PromptArrays(None, None, box))
    prompted = again.mask_logits[0, target, : mask.shape[0], : mask.shape[1]] > 0
    return 1 - dice_score(mask, prompted)


def _entropy(probability: NDArray[np.float32]) -> float:
    """Mean entropy over the pixels that may belong to the target [bit]."""
    may = probability > _FAINT
    return float(_bits(probability[may]).mean()) if may.any() else 0.0


def _bits(p: NDArray[Any]) -> NDArray[Any]:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def pooled_embedding(encoded: Any) -> NDArray[np.float32]:
    """(C,) mean of an embedding (1, C, h, w) over its places, at length 1; of any runtime's encoding."""
    embedding = encoded["embedding"] if isinstance(encoded, dict) else getattr(encoded, "embedding", None)
    if embedding is None:
        embedding = encoded[0]
    values = np.asarray(
        embedding.detach().float().cpu().numpy() if hasattr(embedding, "detach") else embedding
    )
    return _unit(values.astype(np.float32).mean(axis=(0, 2, 3)))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 0 else vector, np.float32)
