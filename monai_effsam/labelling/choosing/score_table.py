# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Scores that stay: one file a model, written whole every so often; the last model's serve until there are new ones."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from monai_effsam.labelling.choosing.scores import ImageScores
from monai_effsam.labelling.durable import write_durably

__all__ = ["ScoreTable"]

log = logging.getLogger(__name__)

KEPT = 4
"""Files of older models that stay."""


class ScoreTable:
    """Scores by image, safe between threads.

    Args:
        folder: of the files, `<model>.npz`; None to keep nothing on disk.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.model = folder, ""
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[str, ImageScores]] = {}
        self._stale: dict[str, ImageScores] = {}
        self._unsaved = 0

    def use_model(self, model: str) -> None:
        """Scores of another model count from now on; those of the last one fill the gaps.

        Args:
            model: what tells it from others, such as its sha256.
        """
        with self._lock:
            if model == self.model:
                return
            self._stale |= {name: scores for name, (_, scores) in self._rows.items()}
            self.model, self._rows, self._unsaved = model, self._read(model), 0

    def lacking(self, stamps: Mapping[str, str]) -> list[str]:
        """Images without scores of this model, or scored when they looked different.

        Args:
            stamps: image -> what changes with its content.
        """
        with self._lock:
            return [n for n, stamp in stamps.items() if n not in self._rows or self._rows[n][0] != stamp]

    def put(self, name: str, stamp: str, scores: ImageScores, model: str) -> None:
        """Store the scores of one image; those of another model than the one in use are dropped."""
        with self._lock:
            if model == self.model:
                self._rows[name] = stamp, scores
                self._unsaved += 1

    def of(self, names: Iterable[str]) -> dict[str, ImageScores]:
        """Scores of those images that have some, of this model or the last."""
        with self._lock:
            found = {}
            for name in names:
                row = self._rows.get(name)
                scores = row[1] if row else self._stale.get(name)
                if scores is not None:
                    found[name] = scores
            return found

    @property
    def unsaved(self) -> int:
        """Scores that only memory holds."""
        return self._unsaved

    def save(self) -> None:
        """Write all scores of this model, as one file.

        Raises:
            DataError: the system refuses to write.
        """
        with self._lock:
            rows, model, count = dict(self._rows), self.model, self._unsaved
        if self.folder is None or not rows or not count:
            return
        buffer = io.BytesIO()
        np.savez(
            buffer,
            names=np.array(list(rows)),
            stamps=np.array([stamp for stamp, _ in rows.values()]),
            numbers=np.array([scores[:3] for _, scores in rows.values()], np.float32),
            pooled=np.array([scores.pooled for _, scores in rows.values()], np.float16),
        )
        write_durably(self._file(model), buffer.getvalue())
        with self._lock:
            if self.model == model:
                self._unsaved -= count
        for old in sorted(self.folder.glob("*.npz"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)

    def _file(self, model: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', model)[:64] or 'model'}.npz"

    def _read(self, model: str) -> dict[str, tuple[str, ImageScores]]:
        if self.folder is None or not self._file(model).is_file():
            return {}
        try:
            with np.load(self._file(model), allow_pickle=False) as file:
                columns = [file[key] for key in ("names", "stamps", "numbers", "pooled")]
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s: scores are unreadable (%s) and made anew", self._file(model), error)
            return {}
        rows = {}
        for name, stamp, (apart, entropy, inside), pooled in zip(*columns, strict=True):
            scores = ImageScores(float(apart), float(entropy), float(inside), pooled.astype(np.float32))
            rows[str(name)] = str(stamp), scores
        return rows
