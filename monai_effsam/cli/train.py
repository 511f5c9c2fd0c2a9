# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Train a model on your own labelled images, or on many sets at once.

DATA is a folder of sets with targets.csv and splits.csv, a folder of image/mask pairs (give --modality and --target),
or a MONAI datalist (the same). Training starts from the shipped model unless --init says otherwise; --resume goes on
after an interruption, with the same batches and the same loss curve. The model prompts itself; with --recipe promptable
it outlines what a box or points show.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import add_options, check_device
from monai_effsam.cli.labelled import add_data_options, check_data, named_targets, read_cases, table_of
from monai_effsam.errors import DataError, UsageError
from monai_effsam.specs import PROMPTABLE
from monai_effsam.targets import Target

if TYPE_CHECKING:
    from monai_effsam.data.sets import Case
    from monai_effsam.engines.recipe import PromptableRecipe, Recipe

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_options(parser, "out", "device", "seed", "overwrite", required=("out",))
    parser.add_argument(
        "--init", metavar="PATH", help="model, run, bundle or timm trunk to start from, or 'none'"
    )
    parser.add_argument(
        "--recipe",
        default="self_prompting",
        metavar="RECIPE",
        help="self_prompting, promptable, or a JSON file with the fields of such a recipe",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs to train (default: the recipe's)")
    parser.add_argument(
        "--epoch-length", type=int, metavar="N", help="steps an epoch (default: the recipe's)"
    )
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="of --init where keys cannot tell, such as medsam; fine-tunes that network",
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in --out")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="data-parallel processes (default: one a GPU, or one a CPU core)",
    )


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked, then train."""
    targets = named_targets(args)
    _check_out(args)
    changes = _changes(args)
    cases = _cases(args, targets)
    from monai_effsam.engines.recipe import read_recipe

    recipe = read_recipe(args.recipe, **changes)
    table = table_of(cases)
    init = _init(args)
    recipe = _adopted(args, recipe, init)
    device = check_device(args.device)
    _warn_of_duplicates(cases)
    training = [case for case in cases if case.split == "train"]
    print(
        f"{len(training)} cases of {len({c.set_name for c in training})} sets, {len(table)} targets -> {args.out}"
    )
    _launch(args, recipe, training, table, init, device)
    print(f"model: {args.out / 'model.pt'}  (try: effsam segment IMAGE --model {args.out} -o OUT)")
    return 0


def _check_out(args: argparse.Namespace) -> None:
    check_data(args.data)
    model, checkpoint = args.out / "model.pt", args.out / "checkpoint.pt"
    if checkpoint.exists() and not (args.resume or args.overwrite):
        raise UsageError(
            f"{args.out}: holds a run already. Give --resume to continue it, or --overwrite to begin anew."
        )
    if model.exists() and not (args.resume or args.overwrite):
        raise UsageError(f"{model}: exists. Give another --out, or --overwrite.")


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the recipe that the command line decides."""
    for name in ("epochs", "epoch_length"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, expected at least 1.")
    return {"epochs": args.epochs, "epoch_length": args.epoch_length, "seed": args.seed}


def _cases(args: argparse.Namespace, values: dict[int, str]) -> list[Case]:
    cases = read_cases(args, values)
    if not any(case.split == "train" for case in cases):
        raise DataError(f"{args.data}: no training cases, expected rows with split 'train'.")
    return cases


def _init(args: argparse.Namespace) -> Path | None:
    if args.init == "none":
        return None
    if args.init:
        path = Path(args.init)
        if not path.exists():
            raise UsageError(f"--init {path}: no such file or folder.")
        return path
    from monai_effsam.inference import default_model_path

    return default_model_path()


def _adopted(
    args: argparse.Namespace, recipe: Recipe | PromptableRecipe, init: Path | None
) -> Recipe | PromptableRecipe:
    """The recipe with the network of --init, where that is promptable and no recipe file says otherwise."""
    from monai_effsam.engines.recipe import PromptableRecipe

    if not (isinstance(recipe, PromptableRecipe) and args.recipe == PROMPTABLE):
        if args.family:
            raise UsageError(
                "--family: the recipe builds its own network, expected --recipe promptable alone."
            )
        return recipe
    if init is None or init.suffix == ".safetensors":
        return recipe
    from monai_effsam.checkpoints import load_checkpoint
    from monai_effsam.engines.build import adopt_checkpoint
    from monai_effsam.networks.nets import PromptableSam

    checkpoint = load_checkpoint(init, family=args.family)
    return adopt_checkpoint(recipe, checkpoint) if isinstance(checkpoint.network, PromptableSam) else recipe


def _warn_of_duplicates(cases: Sequence[Case]) -> None:
    from monai_effsam.data.duplicates import warn_of_duplicates

    warn_of_duplicates(cases)


def _launch(
    args: argparse.Namespace,
    recipe: Recipe | PromptableRecipe,
    cases: Sequence[Case],
    table: tuple[Target, ...],
    init: Path | None,
    device: str,
) -> None:
    import torch

    from monai_effsam.engines.training_run import train

    if args.overwrite and not args.resume:
        for name in ("checkpoint.pt", "losses.jsonl"):
            (args.out / name).unlink(missing_ok=True)
    gpu = device.startswith("cuda")
    count = args.processes or (torch.cuda.device_count() if gpu else os.cpu_count() or 1)
    settings = {"targets": table, "init": init, "resume": args.resume}
    if count == 1:
        train(recipe, cases, args.out, device=device, **settings)
        return
    import ignite.distributed as idist

    # glibc returns freed activations to the system at once and faults them in again: keep them (15 % of a CPU step)
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32 - 1))
    arguments = (recipe, cases, args.out, "cuda" if gpu else "cpu", count, settings)
    idist.spawn("nccl" if gpu else "gloo", _part, arguments, nproc_per_node=count, master_port=_free_port())


def _part(
    rank: int,
    recipe: Recipe | PromptableRecipe,
    cases: Sequence[Case],
    out: Path,
    device: str,
    count: int,
    settings: dict[str, Any],
) -> None:
    """One process's part of the training."""
    import torch

    _follow_parent()
    # channels-last weights of 1x1 convolutions have two equal layouts; DDP remarks on it in every process
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")

    from monai_effsam.engines.training_run import train

    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    train(recipe, cases, out, device=f"cuda:{rank}" if device == "cuda" else device, **settings)


def _free_port() -> int:
    """A port for the processes to meet at; a fixed one would stop the second training on a machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _follow_parent() -> None:
    """End this process when its parent is gone (killed, say): nobody would stop it otherwise."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
