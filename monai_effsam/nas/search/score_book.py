# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Scores of architectures on disk, a line each, so that none is judged twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_effsam.errors import DataError, UsageError
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["ScoreBook"]


class ScoreBook:
    """Architecture -> score.

    Args:
        file: JSON lines, the first of them the identity; None for memory alone. A last line that is cut off, as a
            process that was killed leaves it, is dropped.
        identity: of what the scores depend on.
        writes: whether this process keeps what is added; one of several does.

    Raises:
        UsageError: the file holds scores of another search.
        DataError: it is no book.
    """

    def __init__(self, file: Path | None, identity: Mapping[str, Any], *, writes: bool = True) -> None:
        self.file, self.scores, self.writes = file, dict[str, float](), writes
        self._identity = json.loads(json.dumps(dict(identity)))
        if file is not None and file.is_file():
            self._read(file)
        elif file is not None and writes:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(file.name + ".part")
            part.write_text(json.dumps(self._identity) + "\n", encoding="utf-8")
            part.replace(file)

    def _read(self, file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        try:
            rows = [json.loads(line) for line in whole]
            theirs, self.scores = rows[0], {str(row["id"]): float(row["score"]) for row in rows[1:]}
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"{file}: is no book of scores ({error}). Remove it to begin anew.") from error
        if theirs != self._identity:
            keys = sorted(k for k in {*theirs, *self._identity} if theirs.get(k) != self._identity.get(k))
            raise UsageError(
                f"{file}: is of another search (other {', '.join(keys)}), expected that to be continued. Give the same "
                "options, or another folder."
            )
        if len(whole) < len(lines) and self.writes:
            file.write_text("".join(whole), encoding="utf-8")

    def find(self, architecture: Architecture) -> float | None:
        """The score of an architecture, None if it has none yet."""
        return self.scores.get(architecture.id)

    def add(self, architecture: Architecture, score: float, cost: float) -> None:
        """Keep a score."""
        self.scores[architecture.id] = score
        if self.file is not None and self.writes:
            row = {
                "id": architecture.id,
                "score": score,
                "cost": cost,
                "architecture": architecture.to_json(),
            }
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
