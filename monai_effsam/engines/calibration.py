# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Presence probabilities that mean what they say: Platt scaling on training cases that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from monai_effsam.data.balanced import fitted
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec

__all__ = ["calibrate_presence", "fit_platt", "window_beside"]

ENOUGH = 5
"""Cases of either kind that a fit needs at least."""

LEAST = 1 / 3
"""Share of a picture's height and width that a window has at least."""


@torch.no_grad()
def calibrate_presence(
    network: EspMedSam, slices: Sequence[LabelledSlice], specs: Mapping[str, ImageSpec], batch: int = 8
) -> dict[str, dict[str, float]]:
    """Fit scale and shift of each target's presence logit in place, p = sigmoid(scale x logit + shift).

    Only sets that hold the target at all count: a fetal head is no breast without a lesion, and telling them apart says
    nothing of how sure the network may be. Where they show fewer than five pictures without it, their largest windows
    beside everything labelled stand in for such pictures (`window_beside`). A target with fewer than five present and
    five absent cases keeps scale 1 and shift 0.

    Args:
        network: changed in place (`presence_scale`, `presence_shift`).
        slices: not trained on.
        specs: an `ImageSpec` for each modality.
        batch: slices at once.

    Returns:
        For each fitted target, as `modality/name`: scale, shift, number present, number absent, and how many of the
        absent are windows.
    """
    network.eval()
    report: dict[str, dict[str, float]] = {}
    for index, modality in enumerate(network.modalities):
        whole = [s for s in slices if s.modality == modality]
        own = [*whole, *(w for s in whole if (w := window_beside(s)) is not None)]
        if not own:
            continue
        is_whole = np.arange(len(own)) < len(whole)
        x, y, k = _presence_logits(network, own, specs[modality], index, batch)
        for column, row in enumerate(network.targets_of(index).tolist()):
            seen = (k[:, column] > 0) & _of_sets_with(y[:, column] > 0, own)
            if int((1 - y[seen & is_whole, column]).sum()) >= ENOUGH:
                seen &= is_whole
            present = int(y[seen, column].sum())
            if min(present, int(seen.sum()) - present) < ENOUGH:
                continue
            scale, shift = fit_platt(x[seen, column], y[seen, column])
            network.presence_scale[row], network.presence_shift[row] = scale, shift
            report[f"{modality}/{network.targets[row].name}"] = {
                "scale": scale,
                "shift": shift,
                "present": present,
                "absent": int(seen.sum()) - present,
                "windows": int((seen & ~is_whole).sum()),
            }
    return report


def window_beside(one: LabelledSlice) -> LabelledSlice | None:
    """The largest part of a picture, cut by one straight line, that holds nothing of the label.

    Args:
        one: a slice.

    Returns:
        The part, or None where there is no label, or where less than a third of the height or width would be left.
    """
    rows, columns = np.flatnonzero(one.label.any(1)), np.flatnonzero(one.label.any(0))
    if not len(rows):
        return None
    height, width = one.label.shape
    parts = [
        (slice(0, rows[0]), slice(0, width)),
        (slice(rows[-1] + 1, height), slice(0, width)),
        (slice(0, height), slice(0, columns[0])),
        (slice(0, height), slice(columns[-1] + 1, width)),
    ]
    part = max(parts, key=lambda p: one.label[p].size)
    high, wide = one.label[part].shape
    if min(high / height, wide / width) < LEAST:
        return None
    return replace(
        one, image=np.ascontiguousarray(one.image[part]), label=np.ascontiguousarray(one.label[part])
    )


def _presence_logits(
    network: EspMedSam, slices: Sequence[LabelledSlice], spec: ImageSpec, index: int, batch: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the network says of each slice and target of one modality, what is so, and whether that is known.

    Returns:
        Presence logits, labels (0 or 1) and known (above 0 where the label speaks of the target), each (N, T_m).
    """
    device = network.presence_scale.device
    logits, labels, known = [], [], []
    for start in range(0, len(slices), batch):
        part = fitted(slices[start : start + batch], spec, index)
        modality = torch.full((len(part.image),), index, device=device)
        encoded = network.encode(part.image.to(device), modality)
        logits.append(network.decode(encoded, index).presence_logits.cpu())
        labels.append(part.label.flatten(2).amax(2))
        known.append(part.known)
    x, y, k = (torch.cat(parts).double().numpy() for parts in (logits, labels, known))
    return x, y, k


def _of_sets_with(present: npt.NDArray[np.bool_], slices: Sequence[LabelledSlice]) -> npt.NDArray[np.bool_]:
    """Which slices come from a set that holds the target in one of them."""
    sets = np.array([s.stratum.split("/")[0] for s in slices])
    return np.isin(sets, np.unique(sets[present]))


def fit_platt(
    logit: npt.NDArray[np.float64], label: npt.NDArray[np.float64], prior: float = 0.02
) -> tuple[float, float]:
    """Scale and shift of p = sigmoid(scale x logit + shift), by regularised logistic regression.

    Newton's method, each step halved until the loss falls (whole steps run away where most logits are saturated).

    Args:
        logit: (N,).
        label: (N,), 0 or 1.
        prior: weight a case of the pull towards scale 1 and shift 0; it keeps separable data finite.

    Returns:
        Scale, at least 0.05 so that the order of the cases stays, and shift.
    """
    design = np.column_stack([logit, np.ones_like(logit)])
    start = np.array([1.0, 0.0])
    penalty = prior * len(label)

    def loss(weight: npt.NDArray[np.float64]) -> float:
        z = design @ weight
        return float((np.logaddexp(0, z) - label * z).sum() + penalty / 2 * ((weight - start) ** 2).sum())

    weight, now = start, loss(start)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (design @ weight)))
        gradient = design.T @ (p - label) + penalty * (weight - start)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + (penalty + 1e-9) * np.eye(2)
        change = np.linalg.solve(curvature, gradient)
        while (then := loss(weight - change)) > now and np.abs(change).max() > 1e-10:
            change = change / 2
        weight, now = weight - change, then
        if np.abs(change).max() < 1e-8:
            break
    return float(max(weight[0], 0.05)), float(weight[1])
