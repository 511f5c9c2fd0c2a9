# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Times of all pieces on one machine in one runtime, as a file; and the line that turns their sum into a net's time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from monai_effsam.errors import DataError, UsageError
from monai_effsam.nas.cost.decoders import DecoderPiece, decoder_piece
from monai_effsam.nas.cost.pieces import NetworkPiece, encoder_pieces
from monai_effsam.networks.encoders.architecture import Architecture

__all__ = ["GROUPS", "LatencyFit", "LatencyTable", "PredictedLatency", "group_of"]

_FORMAT = 1

GROUPS: tuple[str, ...] = ("fine", "coarse", "frame")
"""Pieces whose times share a factor: blocks on maps of 32 x 32 and more, of less, and everything but blocks."""

_FINE = 32


def group_of(piece: NetworkPiece) -> str:
    """Which of `GROUPS` a piece is in."""
    if piece.kind != "op":
        return "frame"
    return "fine" if piece.side >= _FINE else "coarse"


@dataclass(frozen=True)
class LatencyFit:
    """How pieces add up to a network: ms = overhead + sum over groups of factor * sum of pieces.

    Args:
        overhead_ms: of a call, whatever the network.
        factors: of each of `GROUPS`.
        nets: how many random networks it was fitted to.
        check: what `check_table` found last: nets, kendall_tau, median_error and the like; empty if it never ran.
    """

    overhead_ms: float = 0.0
    factors: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(GROUPS, 1.0))
    nets: int = 0
    check: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictedLatency:
    """Times of one picture [ms].

    Args:
        encoder: image to embedding.
        decoder: one box to all four masks.
    """

    encoder: float
    decoder: float

    @property
    def total(self) -> float:
        """Encode, then one box [ms]."""
        return self.encoder + self.decoder


@dataclass
class LatencyTable:
    """Measured times; see `measure_table` for how they are made.

    Args:
        machine: what the times depend on: processor, cores, system, runtime, device, threads, clock, versions.
        entries: key of a piece -> ms.
        fit: from pieces to networks.
        space: name of the search space that was measured.
    """

    machine: Mapping[str, Any]
    entries: dict[str, float] = field(default_factory=dict)
    fit: LatencyFit = field(default_factory=LatencyFit)
    space: str = ""

    def ms(self, piece: NetworkPiece | DecoderPiece) -> float:
        """Time of a piece by itself.

        Raises:
            UsageError: it was not measured.
        """
        if piece.key not in self.entries:
            raise UsageError(
                f"latency table: has no entry '{piece.key}', expected one for every piece. Measure it with "
                "`effsam profile --table FILE --space NAME`, which keeps what is there."
            )
        return self.entries[piece.key]

    def missing(self, pieces: Iterable[NetworkPiece | DecoderPiece]) -> list[NetworkPiece | DecoderPiece]:
        """Those pieces that have no entry yet."""
        return [piece for piece in pieces if piece.key not in self.entries]

    def grouped(self, architecture: Architecture) -> dict[str, float]:
        """Sum of the entries of an encoder's pieces for each of `GROUPS` [ms]; raises as `ms`."""
        sums = dict.fromkeys(GROUPS, 0.0)
        for piece in encoder_pieces(architecture):
            sums[group_of(piece)] += self.ms(piece)
        return sums

    def expected_ms(self, piece: NetworkPiece) -> float:
        """What a piece adds to the predicted time of an encoder: its entry times its group's factor.

        Raises:
            UsageError: it was not measured.
        """
        return self.ms(piece) * self.fit.factors[group_of(piece)]

    def predict(self, architecture: Architecture, *, drawn: bool = True) -> PredictedLatency:
        """Times of an architecture's encoder and decoder; `drawn` as of `DecoderPiece`.

        Raises:
            UsageError: a piece of it was not measured.
        """
        encoder = self.fit.overhead_ms + sum(
            self.expected_ms(piece) for piece in encoder_pieces(architecture)
        )
        return PredictedLatency(encoder, self.ms(decoder_piece(architecture, drawn=drawn)))

    def check_machine(self, machine: Mapping[str, Any], file: Path | str = "latency table") -> None:
        """Refuse a table of another machine, runtime, device or number of threads.

        Args:
            machine: as this process would be measured.
            file: named in the error.

        Raises:
            UsageError: the first thing that differs.
        """
        for key in dict.fromkeys((*self.machine, *machine)):
            ours, theirs = self.machine.get(key), machine.get(key)
            if ours != theirs:
                raise UsageError(
                    f"{file}: was measured with {key} {_told(ours)}, expected {_told(theirs)}, which is used here. "
                    "Measure this machine into another file with `effsam profile --table FILE`."
                )

    def save(self, file: Path) -> None:
        """Write a file, whole or not at all."""
        content = {
            "format": _FORMAT,
            "space": self.space,
            "machine": dict(self.machine),
            "fit": asdict(self.fit),
            "entries_ms": {key: round(value, 6) for key, value in sorted(self.entries.items())},
        }
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> LatencyTable:
        """The table of a file.

        Raises:
            DataError: it cannot be read, or is no latency table of this version.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"{file}: cannot be read ({error.strerror}). Make it with `effsam profile --table {file}`."
            ) from error
        except ValueError as error:
            raise DataError(f"{file}: is not JSON ({error}). Name a latency table.") from error
        try:
            if not content["format"] <= _FORMAT:
                raise ValueError(f"format {content['format']}")
            fit = {key: content["fit"][key] for key in (f.name for f in fields(LatencyFit))}
            entries = {str(key): float(value) for key, value in content["entries_ms"].items()}
            if set(fit["factors"]) != set(GROUPS) or not all(
                0 < value < math.inf for value in entries.values()
            ):
                raise ValueError(f"factors {sorted(fit['factors'])}, or times that are none")
            return cls(dict(content["machine"]), entries, LatencyFit(**fit), str(content["space"]))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"{file}: is no latency table of format {_FORMAT} ({type(error).__name__}: {error}). Measure it anew."
            ) from error


def _told(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else f"'{value}'"
