# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the configurations of a bundle name beyond MONAI's own components: items, weights, handlers, processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import distributed

from monai_effsam.checkpoints import load_state
from monai_effsam.checkpoints.description import read_card
from monai_effsam.checkpoints.model_file import fit_weights
from monai_effsam.data.io import find_inputs, read_image, read_label, write_bytes, write_mask
from monai_effsam.data.pairs import read_pairs
from monai_effsam.data.pictures import Pictures, labelled_files, unlabelled_files
from monai_effsam.data.sets import Case, read_datalist, read_sets
from monai_effsam.data.training_slices import as_item
from monai_effsam.data.transforms import Fitted, first_choice
from monai_effsam.engines.recipe import read_recipe
from monai_effsam.errors import DataError
from monai_effsam.networks.nets import EspMedSam
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import MODALITIES, TARGETS, Target, check_modality, targets_of

__all__ = [
    "MaskFiles",
    "TargetDice",
    "bundle_specs",
    "bundle_weights",
    "distillation_pictures",
    "image_items",
    "join_processes",
    "labelled_items",
    "leave_processes",
    "modality_choices",
    "prompted_items",
]

log = logging.getLogger(__name__)


def bundle_specs(bundle_root: Path | str) -> dict[str, ImageSpec]:
    """The image specs of a bundle: of its model if there is one, else of its recipe.

    Raises:
        WeightsError: `models/model.json` cannot be understood.
        UsageError: neither can the recipe.
    """
    model = Path(bundle_root) / "models" / "model.pt"
    if model.with_suffix(".json").is_file():
        return {name: ImageSpec.from_json(values) for name, values in read_card(model)["specs"].items()}
    return read_recipe(Path(bundle_root) / "configs" / "recipe.json").specs()


def bundle_weights(network: EspMedSam, bundle_root: Path | str) -> EspMedSam:
    """The network with the weights of `models/model.pt`, checked against the sha256 in `models/model.json`.

    Raises:
        WeightsError: missing, damaged, or of another network.
    """
    file = Path(bundle_root) / "models" / "model.pt"
    fit_weights(network, load_state(file, read_card(file).get("sha256")), file)
    return network


def modality_choices(first: str | None, known: Sequence[str] = MODALITIES) -> list[str]:
    """All modalities, the chosen one first: what a viewer offers. Without a choice the first is empty.

    Raises:
        UnknownNameError: `first` is none of them.
    """
    if not first:
        return ["", *known]
    check_modality(first, known)
    return [first, *(name for name in known if name != first)]


def image_items(folder: Path | str) -> list[dict[str, Any]]:
    """MONAI items of every image in a folder; a DICOM series is one.

    Raises:
        UsageError: the folder is missing or holds no image.
    """
    return [{"image": source} for source in find_inputs([Path(folder)])]


def labelled_items(
    dataset_dir: Path | str, split: str, modality: str | Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """MONAI items of one split of labelled images.

    Args:
        dataset_dir: a folder of sets with `targets.csv`, a MONAI datalist, or a folder of image/mask pairs whose mask
            values are those of the target table.
        split: `train` or `val`.
        modality: of pairs and datalists; of a list, the first.

    Raises:
        DataError: nothing in that split, or a table that cannot be read.
        UnknownNameError: the modality of pairs or a datalist is unknown.
    """
    return [as_item(case) for case in _labelled_cases(Path(dataset_dir), split, first_choice(modality))]


def _labelled_cases(root: Path, split: str, modality: str | None) -> list[Case]:
    if (root / "targets.csv").is_file():
        cases = read_sets(root, split=split)
    else:
        name = check_modality(modality or "")
        values = {target.value: target.name for target in targets_of(name)}
        cases = read_datalist(root, name, values) if root.is_file() else read_pairs(root, name, values)
    cases = [case for case in cases if case.split == split]
    if not cases:
        raise DataError(f"{root}: no labelled images of split '{split}', expected at least one. Add some.")
    return cases


def prompted_items(
    dataset_dir: Path | str, split: str, modality: str | Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """MONAI items of one split of labelled pictures, one for each "target" that the label of a picture holds.

    Volumes are passed over: nobody prompts slice by slice.

    Args:
        dataset_dir: see `labelled_items`.
        split: `train` or `val`.
        modality: see `labelled_items`.

    Raises:
        DataError: no labelled picture in that split, or one that cannot be read.
        UnknownNameError: the modality of pairs or a datalist is unknown.
    """
    items = []
    for item in labelled_items(dataset_dir, split, modality):
        image = read_image(Path(item["image"]), modality=item["modality"])
        if len(image) == 1:
            values = np.unique(read_label(Path(item["label"]), image)).tolist()
            items += [{**item, "target": name} for value, name in item["values"].items() if value in values]
    if not items:
        raise DataError(
            f"{dataset_dir}: no labelled pictures of split '{split}', expected one. Volumes do not count."
        )
    return items


def distillation_pictures(dataset_dir: Path | str, size: int, modality: str | None = None) -> Pictures:
    """Pictures to distil on: the `train` images of labelled ones, or a folder of any pictures.

    Args:
        dataset_dir: as of `labelled_items`, or a folder without labels.
        size: slices are shrunk to little more than it [px].
        modality: of files that do not tell theirs.

    Raises:
        DataError: nothing can be read.
        UsageError: no such folder, or nothing in it that could be a picture.
    """
    root = Path(dataset_dir)
    if root.is_file() or (root / "targets.csv").is_file() or (root / "masks").is_dir():
        return Pictures(labelled_files(_labelled_cases(root, "train", modality), size))
    return Pictures(unlabelled_files(root, size, modality or ""))


class MaskFiles:
    """Handler that writes the mask of each image in the exact grid of its file, `NAME_mask.png` or `.nii.gz`.

    Args:
        output_dir: made if it is missing; files that exist are replaced.
        key: of the label map that went through `StoredGridd`.
        fitted: key of the image that went through `FitToSpecd`.
    """

    def __init__(self, output_dir: Path | str, key: str = "pred", fitted: str = "image") -> None:
        self.output_dir, self.key, self.fitted = Path(output_dir), key, fitted

    def attach(self, engine: Engine) -> None:
        """Write after every iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the masks of the engine's current batch."""
        for item, answer in zip(engine.state.batch, engine.state.output, strict=True):  # type: ignore[call-overload]
            fitted: Fitted = item[f"{self.fitted}_fitted"]
            path = write_mask(fitted.image, answer[f"{self.key}_mask"], self.output_dir)
            log.info("%s -> %s", fitted.image.path, path)


class TargetDice:
    """Handler that says and writes the mean Dice of each target, over the images that hold it.

    Args:
        output_dir: gets `dice.json`.
        metric: name of a `MeanDice` with details over maps numbered by table row (`UndoSpecd`).
        targets: the target table.
    """

    def __init__(
        self, output_dir: Path | str, metric: str = "val_mean_dice", targets: Sequence[Target] = TARGETS
    ) -> None:
        self.output_dir, self.metric, self.targets = Path(output_dir), metric, tuple(targets)

    def attach(self, engine: Engine) -> None:
        """Report at the end of a run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Report what the engine measured."""
        if idist.get_rank() > 0:
            return
        details = torch.as_tensor(engine.state.metric_details[self.metric])  # type: ignore[attr-defined]
        report = {}
        for target, column in zip(self.targets, details.T, strict=True):
            dice = column[~torch.isnan(column)]
            if len(dice):
                name = f"{target.modality}/{target.name}"
                report[name] = {"dice": round(float(dice.mean()), 4), "images": len(dice)}
                log.info("%-32s Dice %.3f over %d images", name, dice.mean(), len(dice))
        write_bytes(self.output_dir / "dice.json", (json.dumps(report, indent=1) + "\n").encode())


def join_processes(backend: str, device: torch.device | str) -> None:
    """Join the processes that `torchrun` started.

    Args:
        backend: `nccl` between GPUs, `gloo` on CPU.
        device: of this process.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend)


def leave_processes() -> None:
    """Leave what `join_processes` joined."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
