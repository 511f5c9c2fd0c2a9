# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How often each set and each part of a set is drawn, and the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from monai_effsam.data.slices import LabelledSlice
from monai_effsam.errors import DataError

__all__ = ["Strata"]


class Strata:
    """Slices in strata, of which some are drawn more often than others.

    Args:
        slices: to draw from.
        modalities: their names, in the network's order.
        weights: share of each set or stratum (`busi`, `busi/normal`); those not named get 0, and a set's share is
            divided among its strata by their number of cases. Default: the square root of that number.
        filled: share of the draws that must hold a target, for sets that have empty slices too (in volumes most are).

    Raises:
        DataError: there are no slices, or none whose set has a weight.
    """

    def __init__(
        self,
        slices: Sequence[LabelledSlice],
        modalities: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        filled: float = 0.8,
    ) -> None:
        self.modalities, self.filled = tuple(modalities), filled
        rows: dict[str, tuple[list[int], list[int]]] = {}
        cases: dict[str, set[str]] = {}
        for i, s in enumerate(slices):
            rows.setdefault(s.stratum, ([], []))[int(s.label.any())].append(i)
            cases.setdefault(s.stratum, set()).add(s.case)
        self._rows = rows
        counts = {name: len(groups) for name, groups in cases.items()}
        share = _shares(counts, weights)
        if not sum(share.values()) > 0:
            raise DataError(
                f"Strata: weights name none of the sets {', '.join(counts) or '(there are no slices)'}, "
                "expected at least one. Give it a share."
            )
        modality = {s.stratum: s.modality for s in slices}
        self.names = {m: [n for n in share if modality[n] == m and share[n] > 0] for m in self.modalities}
        self.shares = {m: np.array([share[n] for n in names]) for m, names in self.names.items()}

    def weight(self, modality: str) -> float:
        """Share of a modality among the draws; all shares together may be any number."""
        return float(self.shares[modality].sum())

    def draw(self, modality: str, random: np.random.RandomState) -> int:
        """Index of a slice of a modality that has a weight."""
        share = self.shares[modality] / self.shares[modality].sum()
        return self.draw_from(self.names[modality][random.choice(len(share), p=share)], random)

    def draw_from(self, stratum: str, random: np.random.RandomState) -> int:
        """Index of a slice of a stratum."""
        empty, filled = self._rows[stratum]
        rows = filled if filled and (not empty or random.rand() < self.filled) else empty
        return rows[random.randint(len(rows))]


def _shares(counts: Mapping[str, int], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Share of each stratum."""
    if not weights:
        return {name: count**0.5 for name, count in counts.items()}
    whole: dict[str, int] = {}
    for name, count in counts.items():
        if name not in weights:
            whole[name.split("/")[0]] = whole.get(name.split("/")[0], 0) + count
    share = {}
    for name, count in counts.items():
        parent = name.split("/")[0]
        share[name] = weights[name] if name in weights else weights.get(parent, 0.0) * count / whole[parent]
    return share
