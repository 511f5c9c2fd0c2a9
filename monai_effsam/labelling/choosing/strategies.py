# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The strategies of MONAI Label: they read scores that are there, and lend each image to one user."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.strategy import Strategy

from monai_effsam.labelling.choosing.leases import Leases
from monai_effsam.labelling.choosing.order import ORDERS, Candidates
from monai_effsam.labelling.choosing.score_table import ScoreTable

__all__ = ["NextImage", "make_strategies"]


class NextImage(Strategy):
    """The image that a user labels next.

    Args:
        name: one of `ORDERS`.
        table: scores.
        leases: shared by all strategies of a server.
        seed: of chance; None for another one each time.
    """

    def __init__(self, name: str, table: ScoreTable, leases: Leases, seed: int | None = None) -> None:
        description, self._order = ORDERS[name]
        super().__init__(description)
        self.name, self.table, self.leases = name, table, leases
        self._random, self._lock = np.random.RandomState(seed), threading.Lock()

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Choose, and lend the image to the user.

        Args:
            request: `client_id`, who asks.
            datastore: with the images.

        Returns:
            `id`, and the image's scores where it has some; None where nothing is left that nobody else has.
        """
        client = str(request.get("client_id") or "")
        names = datastore.get_unlabeled_images()
        if not names:
            return None
        with self._lock:  # a chooser has one stream of chance, and two must not choose by the same leases
            lent = self.leases.lent()
            labelled = set(datastore.list_images()) - set(names)
            taken = sorted(labelled | (lent & set(names)))
            scores = self.table.of([*names, *taken])
            order = self._order(Candidates(names, taken, scores, self._random))
            chosen = self.leases.take(order, client)
        if chosen is None:
            return None
        found = scores.get(chosen)
        told = {} if found is None else {k: round(v, 4) for k, v in found._asdict().items() if k != "pooled"}
        return {"id": chosen, **told}


def make_strategies(table: ScoreTable, leases: Leases, seed: int | None = None) -> dict[str, NextImage]:
    """All strategies, by name, over one table and one book of leases."""
    return {name: NextImage(name, table, leases, seed) for name in ORDERS}
