# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What was found in an image, and `results.jsonl`, which keeps one line an input.

No torch here: reading results and refusing a run must be quick.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from monai_effsam.errors import DataError, UsageError

__all__ = ["RESULTS_NAME", "ResultsFile", "TargetResult", "make_record", "read_results", "size_text"]

logger = logging.getLogger(__name__)

RESULTS_NAME = "results.jsonl"


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One target of one image.

    Args:
        name: the target's name.
        value: its value in the mask.
        area_px: pixels (of all slices) that bear the value.
        quality: the model's own estimate of IoU, 0..1; of a volume the mean over the slices that show the target.
        presence: probability that the target is there, 0..1; of a volume the largest of its slices.
        found: whether any pixel bears the value.
        area_mm2: area of a single picture, where its spacing is known [mm^2].
        volume_ml: volume, where the spacing of a volume is known [ml].
    """

    name: str
    value: int
    area_px: int
    quality: float
    presence: float
    found: bool
    area_mm2: float | None = None
    volume_ml: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; sizes that are unknown are left out."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: _short(value) if isinstance(value, float) else value for key, value in values.items()}


def make_record(
    *,
    source: str,
    modality: str | None = None,
    modality_source: str | None = None,
    targets: Sequence[TargetResult] = (),
    ms: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    files: Mapping[str, str | None] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """One line of `results.jsonl`; every line has the same keys, `error` only those that failed.

    `dicom_seg` is there if it was asked for: the file's name, or None where there is none.
    """
    record: dict[str, Any] = {
        "input": source,
        "modality": modality,
        "modality_source": modality_source,
        "targets": [target.to_json() for target in targets],
        "ms": {stage: round(value, 1) for stage, value in (ms or {}).items()},
        "notes": list(notes),
        "mask": (files or {}).get("mask"),
        "overlay": (files or {}).get("overlay"),
    }
    if "dicom_seg" in (files or {}):
        record["dicom_seg"] = (files or {})["dicom_seg"]
    if error is not None:
        record["error"] = error
    return record


def size_text(target: Mapping[str, Any]) -> str:
    """The extent of one target of a record, in the best unit that is known."""
    if "volume_ml" in target:
        return f"{target['volume_ml']:.4g} ml"
    if "area_mm2" in target:
        return f"{target['area_mm2']:.4g} mm2"
    return f"{target['area_px']} px"


def read_results(path: Path) -> list[dict[str, Any]]:
    """The records of a results file, in its order; none if there is no file. A last line cut short is left out.

    Raises:
        DataError: a line in the middle is not a record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: results cannot be read ({error}). Move the file away.") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["input"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise DataError(
                f"{path}: line {number} is not a result, expected a JSON object. Move it away."
            ) from error
        records.append(record)
    return records


class ResultsFile:
    """`results.jsonl` of one output folder, held by one process at a time; used as a context manager.

    A record is appended as one whole line. On leaving, lines that a later line of the same input replaces are
    dropped (the file is written beside and renamed), so that a rerun leaves one line an input. A process that is
    killed leaves a readable file in which the last line of an input counts.

    Args:
        folder: the output folder; it must exist.

    Raises:
        UsageError: another process writes to the folder.
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESULTS_NAME
        self._folder = folder
        self._lock = _lock_folder(folder)
        try:
            self._compact()  # also heals a last line that was cut short
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except BaseException as error:
            _unlock(self._lock)
            if not isinstance(error, OSError):
                raise
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}). Choose another folder."
            ) from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            DataError: the line could not be written whole; what was written of it is taken back.
        """
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(28, "no space left")
        except OSError as error:
            os.ftruncate(self._file, size)
            raise DataError(f"{self.path}: cannot be written ({error.strerror}). Free some space.") from error

    def close(self) -> None:
        """Drop lines that were replaced, and let go of the folder."""
        os.close(self._file)
        try:
            self._compact()
        except OSError as error:  # no harm: readers take the last line of an input
            logger.warning("%s: replaced lines are kept (%s)", self.path, error)
        finally:
            _unlock(self._lock)

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _compact(self) -> None:
        """Of the lines that speak of the same input, or of the same mask file, keep the last."""
        if not self.path.exists():
            return
        kept: list[dict[str, Any]] = []
        seen: set[tuple[str, str]] = set()
        for record in reversed(read_results(self.path)):
            keys = {("input", record["input"]), ("mask", record.get("mask") or record["input"])}
            if not keys & seen:
                kept.append(record)
            seen |= keys
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in reversed(kept)).encode()
        if text == self.path.read_bytes():
            return
        handle, beside = tempfile.mkstemp(prefix=".results-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            Path(beside).chmod(self.path.stat().st_mode & 0o777)
            Path(beside).replace(self.path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


def _short(value: float) -> float | None:
    """Four decimals are enough; a number that is not finite has no place in JSON."""
    return round(value, 4) if math.isfinite(value) else None


def _lock_folder(folder: Path) -> int | None:
    """A lock on the folder itself, so that no lock file stays behind; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{folder}: cannot be opened ({error.strerror}). Choose another folder.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UsageError(
            f"{folder}: another effsam process is writing here, expected one at a time. "
            "Wait for it or choose another -o."
        ) from error
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        with suppress(OSError):
            os.close(handle)
