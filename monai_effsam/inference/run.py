# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Many inputs in a row: reading ahead, the network and writing overlap; order is kept, memory is bounded."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_effsam.data.io import Image, output_paths, read_image, write_mask, write_overlay
from monai_effsam.errors import DataError, EffsamError, UsageError
from monai_effsam.inference.answers import Segmentation
from monai_effsam.inference.dicom_seg import algorithm_of, write_seg
from monai_effsam.inference.modality import routed_modality, told_modality
from monai_effsam.inference.plan import Job, Plan, Request
from monai_effsam.inference.results import ResultsFile, make_record
from monai_effsam.inference.runtimes.contract import unprompted
from monai_effsam.inference.segmenter import Segmenter

__all__ = ["Outcome", "run_plan"]

logger = logging.getLogger(__name__)

AHEAD = 3
"""Images that wait between two stages at most."""

HELD_BYTES = 128 * 2**20
"""No further image is read while those on their way hold more than this."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input.

    Args:
        job: the input.
        record: its line in `results.jsonl`.
        error: why it failed, one line; None if it did not.
        is_usage_error: whether it failed because of the request, not because of the file.
    """

    job: Job
    record: dict[str, Any]
    error: str | None = None
    is_usage_error: bool = False


@dataclass(slots=True)
class _Work:
    """One input on its way; `error` ends the way, and what is left is to report it."""

    job: Job
    image: Image | None = None
    modality: str | None = None
    modality_source: str | None = None
    segmentation: Segmentation | None = None
    ms: dict[str, float] | None = None
    notes: tuple[str, ...] = ()
    error: Exception | None = None
    card: dict[str, Any] = field(default_factory=dict)


def run_plan(
    plan: Plan,
    segmenter: Segmenter,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_slices: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Segment every input of a plan and write masks, overlays and `results.jsonl`.

    A bad file is reported and passed over. Files appear whole or not at all; when this is interrupted, inputs that
    are finished keep their files and lines, the others have none.

    Args:
        plan: from `make_plan`.
        segmenter: the model to use.
        on_outcome: called in the calling thread after each input, in order.
        on_slices: called with (slices done, slices in all) while an image goes through the network.

    Raises:
        DataError: the output folder cannot be made or written.
        UsageError: another process writes to the output folder, or nothing is prompted though the model is promptable.
    """
    out = plan.request.out
    if segmenter.promptable and not plan.request.prompts:
        raise unprompted(segmenter.model.path)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: folder cannot be made ({error.strerror}). Choose another -o.") from error
    outcomes: list[Outcome] = []

    def settle(pending: deque[Future[Outcome]], leave: int) -> None:
        """Report what is written, waiting until at most `leave` inputs are still being written."""
        while pending and (len(pending) > leave or pending[0].done()):
            outcomes.append(pending.popleft().result())
            if on_outcome:
                on_outcome(outcomes[-1])

    budget = _Budget()
    with ResultsFile(out) as results, _threads(budget) as (reader, writer):
        pending: deque[Future[Outcome]] = deque()
        for work in _read_ahead(plan, reader, segmenter, budget):
            _segment(work, plan, segmenter, on_slices)
            pending.append(writer.submit(_write, work, plan, results, budget))
            settle(pending, AHEAD)
        settle(pending, 0)
    return outcomes


class _Budget:
    """How many bytes the images on their way hold; who reads waits while that is too much."""

    def __init__(self) -> None:
        self._held = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Until there is room; what takes the room is ahead in the line, so that it will be given back."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._held <= HELD_BYTES)

    def add(self, count: int) -> None:
        """Take (or with a negative count, give back) so many bytes."""
        with self._changed:
            self._held += count
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


@contextmanager
def _threads(budget: _Budget) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    """A reading and a writing thread; on leaving, what they have begun is finished and the rest is dropped."""
    reader = ThreadPoolExecutor(1, "effsam-read")
    writer = ThreadPoolExecutor(1, "effsam-write")
    try:
        yield reader, writer
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        budget.close()
        writer.shutdown(wait=True, cancel_futures=True)
        reader.shutdown(wait=True)


def _read_ahead(
    plan: Plan, reader: ThreadPoolExecutor, segmenter: Segmenter, budget: _Budget
) -> Iterator[_Work]:
    """Inputs in order, a few of them read in advance."""
    futures: deque[Future[_Work]] = deque()
    for job in plan.jobs:
        futures.append(reader.submit(_read, job, plan, segmenter, budget))
        if len(futures) >= AHEAD:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def _read(job: Job, plan: Plan, segmenter: Segmenter, budget: _Budget) -> _Work:
    work = _Work(job)
    budget.wait()
    start = time.perf_counter()
    with _failures_go_to(work):
        asked = plan.request.modality
        image = read_image(job.source, ct_window=plan.request.ct_window, modality=asked)
        budget.add(image.slices.nbytes)
        told = told_modality(image, asked)
        if told.modality is None and not segmenter.promptable:
            told = routed_modality(image, job.label, segmenter.modalities)
        work.image, work.notes = image, image.notes + told.notes
        work.modality, work.modality_source = told.modality, told.source
    work.ms = {"read": (time.perf_counter() - start) * 1000}
    return work


def _segment(
    work: _Work, plan: Plan, segmenter: Segmenter, on_slices: Callable[[int, int], None] | None
) -> None:
    if work.error is not None or work.image is None:
        return
    work.card = segmenter.model.card
    with _failures_go_to(work):
        work.segmentation = segmenter.segment(
            work.image,
            work.modality,
            targets=plan.request.targets or None,
            prompts=plan.request.prompts or None,
            progress=on_slices,
        )
        work.ms = {**(work.ms or {}), **work.segmentation.ms}


def _write(work: _Work, plan: Plan, results: ResultsFile, budget: _Budget) -> Outcome:
    """Mask, overlay and line of one input; its pixels are given up afterwards."""
    try:
        return _write_all(work, plan, results)
    finally:
        if work.image is not None:
            budget.add(-work.image.slices.nbytes)
            work.image = work.segmentation = None


def _write_all(work: _Work, plan: Plan, results: ResultsFile) -> Outcome:
    """Mask, overlay and line of one input: all three, or only a line that holds the error."""
    files: dict[str, str | None] = {}
    with _failures_go_to(work):
        if work.error is None and work.image is not None and work.segmentation is not None:
            files = _write_files(work, work.image, work.segmentation, plan.request)
            record = _record(work, files)
            results.append(record)
            return Outcome(work.job, record)
    _remove(plan.request.out, files)
    record = _record(work, {"dicom_seg": None} if plan.request.dicom_seg else {})
    try:
        results.append(record)
    except DataError as error:
        logger.warning("%s", error)
    return Outcome(work.job, record, record["error"], isinstance(work.error, UsageError))


def _write_files(
    work: _Work, image: Image, segmentation: Segmentation, request: Request
) -> dict[str, str | None]:
    """Names of the files written; if one cannot be, none of this input stays."""
    out, own = request.out, segmentation.targets
    colours = {target.value: target.colour for target in own}
    files: dict[str, str | None] = {}
    start = time.perf_counter()
    try:
        files["mask"] = write_mask(image, segmentation.mask, out).name
        files["overlay"] = write_overlay(image, segmentation.mask, colours, out).name
        if request.dicom_seg:
            algorithm = algorithm_of(work.card, prompted=bool(request.prompts))
            seg, notes = write_seg(image, segmentation.mask, own, out, algorithm)
            files["dicom_seg"], work.notes = seg.name if seg else None, work.notes + notes
    except BaseException:
        for path in output_paths(image, out, dicom_seg=request.dicom_seg):
            path.unlink(missing_ok=True)
        raise
    work.ms = {**(work.ms or {}), "write": (time.perf_counter() - start) * 1000}
    return files


def _remove(out: Path, files: dict[str, str | None]) -> None:
    for name in filter(None, files.values()):
        (out / name).unlink(missing_ok=True)


def _record(work: _Work, files: dict[str, str | None]) -> dict[str, Any]:
    return make_record(
        source=work.job.label,
        modality=work.modality,
        modality_source=work.modality_source,
        targets=work.segmentation.found if work.segmentation and work.error is None else (),
        ms=work.ms,
        notes=work.notes,
        files=files,
        error=None if work.error is None else _sentence(work.error, work.job.label),
    )


@contextmanager
def _failures_go_to(work: _Work) -> Iterator[None]:
    """Keep an exception with the input that caused it: one bad file must not end the run."""
    try:
        yield
    except Exception as error:  # readers and networks raise what they like; all of it is reported
        logger.debug("%s failed", work.job.label, exc_info=error)
        work.error = error


def _sentence(error: Exception, label: str) -> str:
    """One line for a user; names the input even if the exception does not."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if not isinstance(error, EffsamError):
        text = f"{type(error).__name__}: {text}"
    return text if label in text else f"{label}: {text}"
