# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Make a small promptable model from a large one: your pictures, a teacher's checkpoint, one evening.

--images is a folder of pictures without labels, or labelled images as `effsam train` takes them (sets with targets.csv;
pairs or a datalist with --modality and --target). Without labels the student's encoder learns the teacher's embeddings
and its decoder is the teacher's; with labels the decoder is tuned afterwards. --cache keeps what the teacher makes of
each picture, so that it looks at each once: several runs may share it, and --fill fills it from several processes.

--teacher is a checkpoint of SAM, MedSAM, MobileSAM, TinySAM, LiteMedSAM or of this package, the name of a bundle that
ships, or `random` to try all this without weights. Exit status: 0 all well, 1 some pictures could not be read, 2 bad
usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import check_device
from monai_effsam.cli.distill_ablation import check_terms, compare_terms
from monai_effsam.cli.distill_options import add_distill_options
from monai_effsam.cli.inheriting import check_inherit, named_ancestor
from monai_effsam.cli.labelled import named_targets, table_of, training_cases, training_files
from monai_effsam.cli.model_options import teacher_path
from monai_effsam.errors import UsageError
from monai_effsam.targets import TARGETS, Target

if TYPE_CHECKING:
    from monai_effsam.data.pictures import PictureFile, Pictures
    from monai_effsam.engines.distilling_recipe import DistillationRecipe, StageName
    from monai_effsam.engines.distilling_run import Distillation
    from monai_effsam.engines.students import Student
    from monai_effsam.engines.teacher import Teacher
    from monai_effsam.nas.inheritance import MobileTrunk

__all__ = ["add_arguments", "run"]

_GIGABYTE = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_distill_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked, then distil."""
    values = named_targets(args)
    _check(args)
    from monai_effsam.engines.distilling_recipe import stage_names

    cases = training_cases(args, values)
    named = args.stages or ("encoder,decoder" if cases else "encoder")
    stages = stage_names(named)
    if not cases and set(stages) != {"encoder"}:
        raise UsageError(
            f"stages are '{named}', but {args.data} has no labels, expected encoder alone. Give labelled images."
        )
    device = check_device(args.device)
    from monai_effsam.engines.distilling_terms import kept_maps
    from monai_effsam.engines.students import find_student
    from monai_effsam.engines.teacher import load_teacher

    student, ancestor = find_student(args.student, args.size), named_ancestor(args)
    teacher = load_teacher(
        teacher_path(args.teacher),
        family=args.teacher_family,
        keep=kept_maps(args.saliency),
        device=device,
        batch=args.teacher_batch,
        seed=args.seed,
    )
    size = max(student.spec.size, *(spec.size for spec in teacher.specs.values()))
    pictures = _read(args, training_files(args, cases, size))
    recipe = _recipe(args, stages, teacher, student, pictures)
    if ancestor is not None:
        recipe = replace(recipe, inherit=f"{ancestor.name} {ancestor.sha256}")
    table = table_of(cases) if cases else TARGETS
    make = partial(
        _prepared,
        teacher=teacher,
        student=student,
        ancestor=ancestor,
        pictures=pictures,
        table=table,
        device=device,
    )
    if args.ablation:
        compare_terms(args, recipe, lambda own, changed: _distil(own, make(own, changed)))
    else:
        _distil(args, make(args, recipe))
    if pictures.failures:
        print(f"{len(pictures.failures)} files could not be read and were passed over", file=sys.stderr)
    return 1 if pictures.failures else 0


def _check(args: argparse.Namespace) -> None:
    """What is wrong with the request itself."""
    if not args.data.exists():
        raise UsageError(
            f"{args.data}: no such file or folder. Give a folder of pictures, or labelled images."
        )
    if args.fill and not args.cache:
        raise UsageError("--fill is given without --cache, expected a folder to fill. Give --cache DIR.")
    for name in ("views", "batch", "teacher_batch", "size", "cache_limit", "timing"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, expected more than 0.")
    for name in ("trunk", "vgg"):
        path = getattr(args, name)
        if path is not None and not path.is_file():
            raise UsageError(f"--{name} {path}: no such file. Give a file of weights.")
    check_inherit(args)
    check_terms(args)
    kept = args.resume or args.overwrite or args.fill
    if (args.out / "recipe.json").exists() and not kept:
        raise UsageError(
            f"{args.out}: holds a run already. Give --resume to continue it, or --overwrite to begin anew."
        )
    if (args.out / "model.pt").exists() and not kept:
        raise UsageError(f"{args.out / 'model.pt'}: exists. Give another --out, or --overwrite.")


def _read(args: argparse.Namespace, files: list[PictureFile]) -> Pictures:
    from monai_effsam.data.pictures import Pictures

    pictures = Pictures(files, progress=_bar(args, "reading", "file"))
    for path, reason in pictures.failures:
        print(f"passed over: {reason if str(path) in reason else f'{path}: {reason}'}", file=sys.stderr)
    return pictures


def _recipe(
    args: argparse.Namespace,
    stages: tuple[StageName, ...],
    teacher: Teacher,
    student: Student,
    pictures: Pictures,
) -> DistillationRecipe:
    from monai_effsam.engines.distilling_recipe import DistillationRecipe
    from monai_effsam.networks.nets import PromptableSam

    fields: dict[str, Any] = {
        name: getattr(args, name) for name in ("views", "batch") if getattr(args, name) is not None
    }
    if args.epochs is not None:
        fields["epochs"] = _epochs(args.epochs, stages)
    default = "pyramid" if isinstance(teacher.network, PromptableSam) else "none"
    return DistillationRecipe(
        teacher=teacher.sha256,
        encoder=dict(student.encoder),
        spec=student.spec.to_json(),
        stages=stages,
        perceptual=args.perceptual or default,
        weight=args.perceptual_weight,
        embedding=args.embedding_weight,
        logits=args.logits,
        temperature=args.temperature,
        saliency=args.saliency,
        saliency_weight=args.saliency_weight,
        inherit=args.inherit is True,
        decoder_first=args.decoder_first,
        pictures=len(pictures),
        seed=args.seed,
        **fields,
    )


def _epochs(text: str, stages: Sequence[StageName]) -> dict[str, int]:
    """Epochs by stage.

    Raises:
        UsageError: no positive numbers, or neither one nor one a stage.
    """
    numbers = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1 or len(numbers) not in (1, len(stages)):
        raise UsageError(
            f"--epochs is {text}, expected a positive number, or one for each of {', '.join(stages)}."
        )
    return dict(zip(stages, numbers * (len(stages) if len(numbers) == 1 else 1), strict=True))


def _prepared(
    args: argparse.Namespace,
    recipe: DistillationRecipe,
    *,
    teacher: Teacher,
    student: Student,
    ancestor: MobileTrunk | None,
    pictures: Pictures,
    table: Sequence[Target],
    device: str,
) -> Distillation:
    """The run, its parts made and checked, before the teacher is set to work."""
    from monai_effsam.engines.distilling_run import Distillation
    from monai_effsam.engines.perceptual import build_perceptual
    from monai_effsam.engines.students import build_student

    network, options = build_student(
        student,
        teacher.network,
        args.trunk,
        args.seed,
        inherit=args.inherit is True,
        ancestor=ancestor,
    )
    perceptual = build_perceptual(recipe.perceptual, teacher.network, student.spec, args.vgg)
    if args.cache and teacher.cache is None:  # of an ablation the runs share it
        limit = None if args.cache_limit is None else int(args.cache_limit * _GIGABYTE)
        teacher.open_cache(args.cache, args.cache_form, limit)
    return Distillation(
        recipe,
        network,
        options,
        student,
        teacher,
        pictures,
        perceptual,
        args.out,
        targets=table,
        resume=args.resume,
        device=device,
    )


def _distil(args: argparse.Namespace, whole: Distillation) -> None:
    """Fill the cache if there is one, then train."""
    teacher, recipe = whole.teacher, whole.recipe
    cache = teacher.cache
    if cache is not None and ("encoder" in recipe.stages or recipe.decoder_first):
        filled = whole.fill(_bar(args, "teacher", "batch"))
        print(
            f"teacher cache {args.cache}: {filled.computed} views computed, {filled.found} were there; "
            f"{len(cache)} entries, {cache.size / 1e6:.1f} MB"
        )
    if args.fill:
        return
    card: dict[str, Any] = {"teacher": {"path": Path(args.teacher).name, "family": args.teacher_family}}
    if inherited := getattr(whole.network.image_encoder, "inherited", None):
        card["inherited"] = inherited
        print(f"inherited: {inherited['share']:.0%} of the encoder's parameters, from {inherited['network']}")
    if args.timing:
        card["timing"] = _timing(args, whole)
    parameters = sum(p.numel() for p in whole.network.parameters())
    print(
        f"{len(whole.train)} pictures to train on and {len(whole.watched)} to watch, stages "
        f"{', '.join(recipe.stages)}, student of {parameters / 1e6:.1f} M parameters -> {args.out}"
    )
    path = whole.run(card)
    if cache is not None:
        print(f"teacher cache: {cache.hits} hits, {cache.misses} misses")
    print(f"model: {path}  (try: effsam segment IMAGE --model {args.out} --box X0,Y0,X1,Y1 -o OUT)")


def _timing(args: argparse.Namespace, whole: Distillation) -> dict[str, Any]:
    """Print what an epoch takes, and what keeping a view does."""
    from monai_effsam.engines.distilling_time import epoch_seconds, form_costs

    found = {name: round(value, 2) for name, value in epoch_seconds(whole, args.timing).items()}
    with_cache = f" and {found['cached']} s with it, {found['gain']} times faster" if "gain" in found else ""
    print(
        f"an epoch takes {found['uncached']} s without the cache{with_cache} ({args.timing} steps measured)"
    )
    costs = form_costs(whole, args.timing)
    for form, cost in costs.items():
        print(f"a view is kept in {cost.bytes / 1e6:.3f} MB as '{form}', error {cost.error:.3%}")
    return {**found, "forms": {form: cost._asdict() for form, cost in costs.items()}}


def _bar(args: argparse.Namespace, name: str, unit: str) -> Callable[[Any], Any]:
    """A progress bar around something to go through."""
    from tqdm import tqdm

    disable = True if args.quiet else None
    return lambda x: tqdm(x, desc=name, unit=unit, delay=2, disable=disable, leave=False)
