# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a run will read and write, checked whole before anything heavy is loaded or any file is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_effsam.data.io import CT_WINDOWS, Source, find_inputs, output_paths, read_image
from monai_effsam.errors import DataError, UnknownNameError, UsageError
from monai_effsam.inference.dicom_seg import check_sources
from monai_effsam.inference.modality import can_look, routed_modality, told_modality, unknown_modality
from monai_effsam.inference.results import RESULTS_NAME, read_results
from monai_effsam.inference.runtimes.contract import known_modalities
from monai_effsam.specs import Prompts
from monai_effsam.targets import TARGETS, Target, check_modality, find_targets, prompted_target, targets_of

__all__ = ["Job", "Plan", "Request", "make_plan"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for.

    Args:
        inputs: files, folders and DICOM series folders.
        out: output folder; made if it is missing.
        modality: of every input; None takes what DICOM attributes tell, or else the router.
        targets: names of the targets wanted; none means all of the modality.
        prompts: points and box in source pixels, for a single picture.
        overwrite: replace outputs that exist.
        resume: pass over inputs that an earlier run into `out` finished.
        ct_window: preset of `data.io.CT_WINDOWS` for CT volumes.
        dicom_seg: also write a DICOM Segmentation for each DICOM input.
    """

    inputs: tuple[Path, ...]
    out: Path
    modality: str | None = None
    targets: tuple[str, ...] = ()
    prompts: Prompts = field(default_factory=Prompts)
    overwrite: bool = False
    resume: bool = False
    ct_window: str = "soft_tissue"
    dicom_seg: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One input.

    Args:
        source: what `data.io.read_image` reads.
        label: the input as it appears in results and messages, unique in a plan.
    """

    source: Source
    label: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that can be carried out.

    Args:
        request: as asked.
        jobs: what is to be done, in order.
        passed: inputs that an earlier run finished.
    """

    request: Request
    jobs: tuple[Job, ...]
    passed: int = 0


def make_plan(request: Request, table: Sequence[Target] = TARGETS, *, promptable: bool = False) -> Plan:
    """Find the inputs, name the outputs, and refuse what cannot be done; nothing is written.

    Args:
        request: what is asked for.
        table: the model's target table.
        promptable: whether the model outlines what it is prompted for, whatever it is called.

    Raises:
        UsageError: wrong names or prompts, missing inputs, outputs that exist or would replace an input.
        MissingExtraError: a DICOM Segmentation is asked for, and highdicom is not installed.
    """
    if promptable:
        _check_prompted_names(request, table)
    else:
        _check_names(request, table)
    if request.ct_window not in CT_WINDOWS:
        raise UnknownNameError("CT window", request.ct_window, CT_WINDOWS)
    sources = find_inputs(request.inputs)
    if request.dicom_seg:
        check_sources(sources)
    if request.prompts:
        _check_prompts(request, sources, None if promptable else table)
    elif not promptable and request.modality is None and all(s.kind != "dicom" for s in sources):
        _check_looks(request, sources, known_modalities(table))
    if request.out.exists() and not request.out.is_dir():
        raise UsageError(f"{request.out}: is a file, expected a folder. Choose another -o.")
    jobs = _labelled(sources)
    _check_inputs_stay(jobs, request)
    finished = _finished(request) if request.resume else set()
    open_jobs = tuple(job for job in jobs if job.label not in finished)
    if not (request.overwrite or request.resume):
        _check_new(jobs, request)
    return Plan(request, open_jobs, len(jobs) - len(open_jobs))


def _check_names(request: Request, table: Sequence[Target]) -> None:
    known = known_modalities(table)
    if request.modality is not None:
        check_modality(request.modality, known)
        find_targets(request.targets, request.modality, table)
        return
    everything = {target.name: target for target in table}
    for name in request.targets:  # the modality is not known yet; a name that no modality has can be refused
        find_targets([name], everything[name].modality if name in everything else known[0], table)


def _check_prompted_names(request: Request, table: Sequence[Target]) -> None:
    if request.modality is not None:
        check_modality(request.modality, known_modalities(table, promptable=True))
    prompted_target(request.targets, request.modality, table)


def _check_prompts(request: Request, sources: Sequence[Source], table: Sequence[Target] | None) -> None:
    """Refuse a prompt that has no single picture, lies outside of it or, with a table, has no single target."""
    if len(sources) != 1:
        raise UsageError(
            f"prompts: {len(sources)} inputs are given, expected one. Prompt one picture at a time."
        )
    try:
        image = read_image(sources[0], ct_window=request.ct_window, modality=request.modality)
    except DataError:
        return  # the run itself reports it
    if len(image) != 1:
        raise UsageError(
            f"{sources[0].path}: has {len(image)} slices, expected one for a prompt. Prompt a 2D image."
        )
    request.prompts.check_inside(image.size)
    if table is not None:
        told = told_modality(image, request.modality)
        if told.modality is None:
            told = routed_modality(image, str(sources[0].path), known_modalities(table))
        _check_one_target(request, str(told.modality), table)


def _check_looks(request: Request, sources: Sequence[Source], known: Sequence[str]) -> None:
    """Refuse files that tell no modality where no router ships, or a single picture that looks like none known."""
    if not can_look():
        raise UsageError(unknown_modality("modality", known))
    if len(sources) == 1 and sources[0].kind == "raster":
        try:
            image = read_image(sources[0])
        except DataError:
            return  # the run itself reports it
        routed_modality(image, str(sources[0].path), known)


def _check_one_target(request: Request, modality: str, table: Sequence[Target]) -> None:
    own = targets_of(modality, table)
    chosen = find_targets(request.targets, modality, table) or own
    if len(chosen) != 1:
        names = ", ".join(target.name for target in chosen)
        raise UsageError(
            f"prompts: {len(chosen)} targets of {modality} are asked for, expected one. "
            f"Give --target with one of {names}."
        )


def _labelled(sources: Sequence[Source]) -> list[Job]:
    """A job for each input; several DICOM series of one folder are told apart by their first files."""
    counts = Counter(source.path for source in sources)
    return [Job(s, str(s.path if counts[s.path] == 1 else s.paths[0])) for s in sources]


def _outputs(job: Job, request: Request) -> tuple[Path, ...]:
    return output_paths(job.source, request.out, dicom_seg=request.dicom_seg)


def _check_inputs_stay(jobs: Sequence[Job], request: Request) -> None:
    inputs = {path.resolve() for job in jobs for path in job.source.paths}
    for job in jobs:
        for path in _outputs(job, request):
            if path.resolve() in inputs:
                raise UsageError(f"{path}: is an input and would be replaced. Choose another -o.")


def _check_new(jobs: Sequence[Job], request: Request) -> None:
    there = [path for job in jobs for path in _outputs(job, request) if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UsageError(
            f"{there[0]}{more}: exists, expected a new file. Add --overwrite to replace what is there, "
            "--resume to do only what is missing, or choose another -o."
        )


def _finished(request: Request) -> set[str]:
    """Labels of inputs whose record has no error and whose files are there, also the one that is asked for now."""

    def is_there(record: dict[str, Any]) -> bool:
        asked = ["dicom_seg"] if request.dicom_seg else []
        names = [record["mask"], record["overlay"], *(record[key] for key in asked if record.get(key))]
        return all(key in record for key in asked) and all((request.out / name).is_file() for name in names)

    records = read_results(request.out / RESULTS_NAME)
    return {record["input"] for record in records if "error" not in record and is_there(record)}
