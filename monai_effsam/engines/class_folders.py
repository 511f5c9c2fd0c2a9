# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training on a folder in ImageNet's layout, `train/CLASS/FILE` and `val/CLASS/FILE`, after the usual recipe.

Random resized crops, flips, RandAugment, random erasing, mixup, cutmix and label smoothing are timm's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from monai_effsam.checkpoints.classifier_file import save_classifier
from monai_effsam.data.io import read_image
from monai_effsam.data.routing.batches import ClassBatch
from monai_effsam.engines.classification import ClassifierRecipe, settle_norms
from monai_effsam.engines.router_training import SETTLING
from monai_effsam.engines.run_keeper import RunKeeper
from monai_effsam.errors import DataError
from monai_effsam.metrics.complexity import count_parameters
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.nets.tic import TicClassifier
from monai_effsam.specs import ImageSpec

__all__ = ["ClassFolder", "FolderBatches", "finish_classifier"]

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class ClassFolder(Dataset[dict[str, Any]]):
    """Pictures of one split as items {"image": (3, S, S) float32, "label": int}.

    Args:
        root: with a folder a split, in it a folder a class.
        split: `train` or `val`.
        spec: mean, standard deviation and size of the network's input.
        augmented: whether pictures are varied.

    Attributes:
        classes: names of the class folders, sorted.

    Raises:
        DataError: no such folder, or no picture in it.
    """

    def __init__(self, root: Path | str, split: str, spec: ImageSpec, *, augmented: bool = False) -> None:
        folder = Path(root) / split
        self.classes = (
            tuple(sorted(p.name for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ()
        )
        self.files = [
            (file, number)
            for number, name in enumerate(self.classes)
            for file in sorted((folder / name).rglob("*"))
            if file.suffix.lower() in _ENDINGS
        ]
        if not self.files:
            raise DataError(
                f"{folder}: holds no pictures, expected {split}/CLASS/FILE as of ImageNet. Check the path."
            )
        import_timm()
        from timm.data import create_transform

        self.transform = create_transform(
            spec.size,
            is_training=augmented,
            auto_augment="rand-m9-mstd0.5-inc1" if augmented else None,
            re_prob=0.25 if augmented else 0.0,
            re_mode="pixel",
            interpolation="bicubic",
            mean=spec.mean,
            std=spec.std,
        )

    def __len__(self) -> int:
        """Pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One picture and its class.

        Raises:
            DataError: it cannot be read.
        """
        from PIL import Image

        file, label = self.files[index]
        return {"image": self.transform(Image.fromarray(read_image(file).rgb(0))), "label": label}


class FolderBatches(IterableDataset[ClassBatch]):
    """An epoch of a `ClassFolder` at a time, in an order of its own each, shared out among the processes.

    Args:
        folder: augmented.
        batch: pictures a step of this process, even for mixup.
        workers: processes that read.
        smoothing: of labels, after mixup.
        mixup: strength of mixup; 0 for none.
        cutmix: strength of cutmix; 0 for none.
        seed: of everything random.

    Raises:
        DataError: fewer pictures than one step of all processes takes.
    """

    def __init__(
        self,
        folder: ClassFolder,
        batch: int,
        workers: int = 8,
        *,
        smoothing: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.batch, self.workers, self.seed, self.epoch = folder, batch, workers, seed, 0
        self.share = batch * idist.get_world_size()
        if len(self) < 1:
            raise DataError(
                f"training folder: holds {len(folder)} pictures, expected at least {self.share}, one step of all "
                "processes. Lower the batch."
            )
        import_timm()
        from timm.data import Mixup

        self.mix = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=len(folder.classes))

    def __len__(self) -> int:
        """Steps an epoch; pictures that fill no step are left to another epoch."""
        return len(self.folder) // self.share

    def __iter__(self) -> Iterator[ClassBatch]:
        """The batches of the current `epoch`."""
        order = np.random.RandomState([self.seed, self.epoch]).permutation(len(self.folder))
        own = order[idist.get_rank() :: idist.get_world_size()][: len(self) * self.batch]
        np.random.seed([self.seed, idist.get_rank(), self.epoch])  # noqa: NPY002  timm's mixup draws from it
        loader: Any = DataLoader(
            self.folder,
            batch_size=self.batch,
            sampler=own.tolist(),
            num_workers=self.workers,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
        )
        for items in loader:
            image: Tensor = items["image"]
            mixed, target = self.mix(image, items["label"].to(image.device))
            yield ClassBatch(mixed, target)


def finish_classifier(
    trainer: SupervisedTrainer,
    keeper: RunKeeper[TicClassifier],
    recipe: ClassifierRecipe,
    classes: Sequence[str],
    path: Path | str,
) -> Path:
    """Train what is left to train, and write the averaged network.

    Args:
        trainer: of `build_router_trainer`.
        keeper: of the run.
        recipe: that was trained.
        classes: names, in the order of the labels.
        path: of `model.pt`.

    Returns:
        The path.
    """
    if trainer.state.epoch < trainer.state.max_epochs:
        trainer.run()
    if idist.get_rank() == 0:
        device = next(keeper.average.parameters()).device
        settle_norms(keeper.average, islice(cast(FolderBatches, trainer.data_loader), SETTLING), device)
        card = {"parameters": count_parameters(keeper.average), "recipe": asdict(recipe)}
        save_classifier(Path(path), keeper.average, recipe.spec, recipe.network, classes, card)
    idist.barrier()
    return Path(path)
