# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Presence probabilities that mean what they say: Platt scaling on training cases that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from monai_effsam.data.balanced import LabelledSlice, fitted
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec

__all__ = ["calibrate_presence"]


@torch.no_grad()
def calibrate_presence(
    network: EspMedSam, slices: Sequence[LabelledSlice], specs: Mapping[str, ImageSpec], batch: int = 8
) -> dict[str, dict[str, float]]:
    """Fit scale and shift of each target's presence logit in place, p = sigmoid(scale x logit + shift).

    A target of which the slices hold fewer than five present and five absent cases keeps scale 1 and shift 0.

    Args:
        network: changed in place (`presence_scale`, `presence_shift`).
        slices: not trained on.
        specs: an `ImageSpec` for each modality.
        batch: slices at once.

    Returns:
        For each fitted target, as `modality/name`: scale, shift, number present, number absent.
    """
    network.eval()
    device = network.presence_scale.device
    report: dict[str, dict[str, float]] = {}
    for index, modality in enumerate(network.modalities):
        own = [s for s in slices if s.modality == modality]
        logits, labels, known = [], [], []
        for start in range(0, len(own), batch):
            part = fitted(own[start : start + batch], specs[modality], index)
            encoded = network.encode(
                part.image.to(device), torch.full((len(part.image),), index, device=device)
            )
            logits.append(network.decode(encoded, index).presence_logits.cpu())
            labels.append(part.label.flatten(2).amax(2))
            known.append(part.known)
        if not own:
            continue
        x, y, k = (torch.cat(parts).double().numpy() for parts in (logits, labels, known))
        for column, row in enumerate(network.targets_of(index).tolist()):
            seen = k[:, column] > 0
            present = int(y[seen, column].sum())
            if min(present, int(seen.sum()) - present) < 5:
                continue
            scale, shift = _platt(x[seen, column], y[seen, column])
            network.presence_scale[row], network.presence_shift[row] = scale, shift
            report[f"{modality}/{network.targets[row].name}"] = {
                "scale": scale,
                "shift": shift,
                "present": present,
                "absent": int(seen.sum()) - present,
            }
    return report


def _platt(logit: np.ndarray, label: np.ndarray, prior: float = 0.02) -> tuple[float, float]:
    """Regularised logistic regression on one feature by Newton's method; the prior keeps separable data finite."""
    design = np.column_stack([logit, np.ones_like(logit)])
    weight, start = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    penalty = prior * len(label) * np.eye(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ weight, -30, 30)))
        gradient = design.T @ (p - label) + penalty @ (weight - start)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + penalty
        change = np.linalg.solve(curvature, gradient)
        weight = weight - change
        if np.abs(change).max() < 1e-8:
            break
    return float(max(weight[0], 0.05)), float(weight[1])
