# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Search a small encoder for your own machine: the most accurate one that it runs within a budget.

--images is a folder of pictures, or labelled images as `effsam train` takes them; labels only tell patients apart. A
teacher looks at each picture once; encoders of a search space then compete in giving its embeddings. What each part of
a network costs is measured here (--table keeps it), for --runtime and --device. Of 300MMAC nothing is measured.

OUT gets architecture.json, for `effsam distill --student OUT/architecture.json`, and report.html. Stopped at any time,
--resume goes on. Exit status: 0 all well, 1 some pictures could not be read, 2 bad usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import check_device
from monai_effsam.cli.inheriting import check_inherit, named_ancestor
from monai_effsam.cli.labelled import named_targets, training_cases, training_files
from monai_effsam.cli.model_options import teacher_path
from monai_effsam.cli.search_options import add_search_options, budget_of
from monai_effsam.errors import UsageError

if TYPE_CHECKING:
    from monai_effsam.data.pictures import Pictures
    from monai_effsam.engines.search_run import EncoderSearch, SearchPlan
    from monai_effsam.engines.teacher import Teacher
    from monai_effsam.nas.space import SearchSpace
    from monai_effsam.nas.supernet import ArchitecturePrice

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_search_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked, then search; one process's part of it under `torchrun`."""
    with _processes(args):
        return _run(args)


@contextmanager
def _processes(args: argparse.Namespace) -> Iterator[None]:
    """Join those that `torchrun` started, if it did; only the first of them speaks."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from monai_effsam.engines.bundle_parts import join_processes, leave_processes

    own = check_device(args.train_device).startswith("cuda")
    args.train_device = f"cuda:{os.environ['LOCAL_RANK']}" if own else "cpu"
    join_processes("nccl" if own else "gloo", args.train_device)
    try:
        with ExitStack() as stack:
            if os.environ["RANK"] != "0":
                args.quiet = True
                stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            yield
    finally:
        leave_processes()


def _run(args: argparse.Namespace) -> int:
    from monai_effsam.engines.search_run import EncoderSearch, SearchPlan
    from monai_effsam.engines.searching import SearchMaterial, SearchSizes

    budget, unit = budget_of(args.budget)
    _check(args, unit)
    ancestor = named_ancestor(args)
    space, fixed = _space(args)
    if ancestor is not None and space.inverted:
        space = replace(space, trunk=ancestor.kind)
    sizes = SearchSizes(args.batch, args.views, args.judge_steps)
    plan = SearchPlan(
        args.searcher, args.space, fixed, budget, unit, args.with_decoder, args.epochs, args.top, args.outer,
        args.count, sizes, args.seed,
    )  # fmt: skip
    device = check_device(args.train_device)
    teacher = _teacher(args, device)
    pictures = _pictures(args, max(*space.sizes, *(spec.size for spec in teacher.specs.values())))
    material = SearchMaterial(
        space, teacher, pictures, sizes, seed=args.seed, device=device, ancestor=ancestor
    )
    if args.dry_run:
        plan = _for_estimate(args, plan)
    price = _price(args, plan.unit, drawn=getattr(teacher.network, "drawn", True))
    search = EncoderSearch(plan, space, price, material, args.out, device=device)
    if args.dry_run:
        _tell_estimate(search)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    _search(args, plan, search, teacher)
    if pictures.failures:
        print(f"{len(pictures.failures)} files could not be read and were passed over", file=sys.stderr)
    return 1 if pictures.failures else 0


def _check(args: argparse.Namespace, unit: str) -> None:
    """What is wrong with the request itself."""
    if unit == "MMAC" and (args.with_decoder or args.table):
        raise UsageError(
            f"--budget {args.budget}: is of MACs, expected a time with --table or --with-decoder."
        )
    if not args.data.exists():
        raise UsageError(f"{args.data}: no such file or folder. Give a folder of pictures.")
    check_inherit(args)
    for name in ("epochs", "top", "outer", "count", "batch", "views", "judge_steps", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, expected at least 1.")
    if (args.out / "plan.json").exists() and not (args.resume or args.overwrite or args.dry_run):
        raise UsageError(
            f"{args.out}: holds a search already. Give --resume to continue it, or --overwrite to begin anew."
        )


def _space(args: argparse.Namespace) -> tuple[SearchSpace, dict[str, int]]:
    """The space, and which choices of it the request fixes."""
    from monai_effsam.nas.space import find_space
    from monai_effsam.nas.supernet import narrowed

    space = find_space(args.space)
    # embeddings tell nothing about the decoder: its shape is given and not searched
    fixed = {
        "decoder_depth": args.decoder_depth or max(space.decoder_depths),
        "mlp_dim": max(space.mlp_dims),
        "decoder_width": max(space.decoder_widths),
    }
    fixed |= {name: value for name in ("stem", "stride") if (value := getattr(args, name)) is not None}
    return narrowed(space, **fixed), fixed


def _teacher(args: argparse.Namespace, device: str) -> Teacher:
    from monai_effsam.engines.teacher import load_teacher

    if args.teacher is None:
        from monai_effsam.inference.model_path import shipped_models, told_of

        shipped = {name: path for name, path in shipped_models().items() if told_of(path).promptable}
        if not shipped:
            raise UsageError("--teacher: none is given and no promptable model ships. Name a checkpoint.")
        args.teacher = max(shipped, key=lambda one: (shipped[one] / "models" / "model.pt").stat().st_size)
        print(f"teacher: {args.teacher}, which ships (--teacher takes another)")
    path = teacher_path(args.teacher)
    return load_teacher(path, family=args.teacher_family, device=device, seed=args.seed)


def _pictures(args: argparse.Namespace, size: int) -> Pictures:
    from monai_effsam.data.pictures import Pictures

    files = training_files(args, training_cases(args, named_targets(args)), size)
    pictures = Pictures(files, progress=_bar(args, "reading", "file"))
    for path, reason in pictures.failures:
        print(f"passed over: {reason if str(path) in reason else f'{path}: {reason}'}", file=sys.stderr)
    return pictures


def _price(args: argparse.Namespace, unit: str, *, drawn: bool) -> ArchitecturePrice:
    """By MACs, or by a table that is measured as far as it is not there."""
    from monai_effsam.nas.supernet import latency_price, mac_price

    if unit == "MMAC":
        return mac_price()
    import ignite.distributed as idist

    from monai_effsam.cli.profile_table import keep_table, open_stopwatch
    from monai_effsam.nas.cost import LatencyTable
    from monai_effsam.nas.space import find_space

    file = _table_file(args)
    if idist.get_rank() == 0:
        if not file.exists():
            print(f"latency table {file}: measured now, which takes some minutes")
        if not args.table:
            args.out.mkdir(parents=True, exist_ok=True)
        keep_table(file, find_space(args.space), open_stopwatch(args), quiet=args.quiet)
    idist.barrier()
    return latency_price(LatencyTable.load(file), with_decoder=args.with_decoder, drawn=drawn)


def _table_file(args: argparse.Namespace) -> Path:
    return Path(args.table or args.out / "table.json")


def _for_estimate(args: argparse.Namespace, plan: SearchPlan) -> SearchPlan:
    """A plan that needs nothing measured: as long as times are not known, no network is too dear."""
    from monai_effsam.cli.profile_table import unmeasured
    from monai_effsam.nas.space import find_space

    count = unmeasured(_table_file(args), find_space(args.space)) if plan.unit == "ms" else 0
    if not count:
        return plan
    print(f"     table: {count} pieces and networks to measure first, about {_time(1.5 * count)}")
    return replace(plan, budget=1e12, unit="MMAC")


def _tell_estimate(search: EncoderSearch) -> None:
    found = search.estimate()
    for name, seconds in found.items():
        print(f"{name:>10}: {_time(seconds)}")
    print(
        f"{'whole':>10}: {_time(sum(found.values()))}, for {search.steps} steps of supernets and {search.judged} "
        f"networks to judge on {len(search.material.judged_rows)} pictures; what a cache has saves its part"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _search(args: argparse.Namespace, plan: SearchPlan, search: EncoderSearch, teacher: Teacher) -> None:
    import ignite.distributed as idist

    from monai_effsam.data.io import write_bytes
    from monai_effsam.nas.search import RankedArchitecture
    from monai_effsam.reports import search_page

    search.begin(resume=args.resume)
    cache = teacher.open_cache(args.cache or args.out / "cache", args.cache_form)
    filled = search.material.fill(_bar(args, "teacher", "batch"))
    print(
        f"teacher cache: {filled.computed} views computed, {filled.found} were there; {cache.size / 1e6:.1f} MB"
    )
    rows = search.material.rows
    print(
        f"{len(rows.weights)} pictures train, {len(rows.choices)} choose, {len(search.material.judged_rows)} judge; "
        f"{search.problem.space.count:.3g} networks -> {args.out}"
    )
    with ExitStack() as stack:
        from tqdm import tqdm

        bar = stack.enter_context(
            tqdm(
                total=search.steps or None,
                desc="supernet",
                unit="step",
                delay=2,
                disable=True if args.quiet else None,
            )
        )

        def on_step(row: dict[str, float]) -> None:
            bar.n = bar.n + 1
            bar.set_postfix(
                loss=f"{row['loss']:.3f}", cost=f"{row['cost']:.1f}", entropy=f"{row['entropy']:.2f}"
            )

        def on_score(one: RankedArchitecture) -> None:
            print(f"judged {one.architecture.id}: error {-one.score:.4f}, {one.cost:.2f} {plan.unit}")

        ranked = search.run(on_step=on_step, on_score=on_score)
    facts: dict[str, Any] = {
        "plan": plan.searcher,
        "space": plan.space,
        "budget": plan.budget,
        "unit": plan.unit,
    }
    facts |= {"teacher": Path(args.teacher).name, "pictures": len(search.material.pictures)}
    ancestor = search.material.ancestor
    if ancestor is not None:
        facts |= {"inherits": f"{ancestor.name}, sha256 {ancestor.sha256}"}
    if idist.get_rank() > 0:
        return
    page = search_page(search.facts(ranked), search.rows(), facts)
    write_bytes(args.out / "report.html", page.encode())
    best = ranked[0]
    print(
        f"best: {best.architecture.id}, error {-best.score:.4f}, {best.cost:.2f} {plan.unit} of {plan.budget:g}"
    )
    print(
        f"report: {args.out / 'report.html'}  (next: effsam distill --student {args.out / 'architecture.json'} "
        f"--teacher ... --images {args.data}{f' --inherit {args.inherit}' if args.inherit else ''} -o OUT)"
    )


def _bar(args: argparse.Namespace, name: str, unit: str) -> Callable[[Any], Any]:
    """A progress bar around something to go through."""
    from tqdm import tqdm

    disable = True if args.quiet else None
    return lambda x: tqdm(x, desc=name, unit=unit, delay=2, disable=disable, leave=False)
