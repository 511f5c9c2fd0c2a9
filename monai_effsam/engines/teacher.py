# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A teacher: a frozen network, the input that it wants, and a cache so that it looks at each view once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_effsam.checkpoints import load_checkpoint
from monai_effsam.data.distilling import EMBEDDING
from monai_effsam.data.placement import apply_spec
from monai_effsam.data.slices import LabelledSlice
from monai_effsam.data.teacher_cache import CacheForm, TeacherCache
from monai_effsam.data.views import View, make_view, object_boxes, view_key
from monai_effsam.engines.teacher_maps import (
    GlobalAttention,
    global_attention,
    gradient_map,
    last_norm,
    middle_corners,
    rollout_map,
)
from monai_effsam.errors import UsageError
from monai_effsam.losses.saliency_maps import activation_map
from monai_effsam.networks.encoders import Encoded, ImageEncoder
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ANY_MODALITY, ImageSpec, spec_of

__all__ = ["RANDOM", "Filled", "Kept", "Teacher", "load_teacher", "state_sha256"]

log = logging.getLogger(__name__)

Kept = Literal["embedding", "saliency", "logits", "gradient", "rollout"]
Arrays = Mapping[str, NDArray[Any]]

RANDOM = "random"
"""Name of a teacher that needs no weights: a small network with seeded random ones."""


class Filled(NamedTuple):
    """What filling a cache came to: views that were computed, and views that were there already."""

    computed: int
    found: int


class Teacher:
    """Embeddings of views, from the network or from what it made of them before.

    Args:
        network: put in eval mode, its gradients switched off.
        specs: modality -> how it wants its input; under "" that of all which are not named.
        sha256: of its weights.
        keep: names of the arrays wanted beside the embedding, (C, h, w). `saliency`, (h, w), is the energy of what
            enters the last channel norm. `logits`, (N, h', w'), and `quality`, (N,), answer the boxes around the
            objects of a view, `object_boxes`. `gradient`, (h, w), is what these masks, or that of the middle of the
            frame, hang on, see `gradient_map`; `rollout`, (h, w), what its global blocks look at, see `rollout_map`.
        device: to run on.
        batch: views at once.

    Raises:
        UsageError: an array that such a network does not give.
    """

    def __init__(
        self,
        network: PromptableSam | EspMedSam,
        specs: Mapping[str, ImageSpec],
        sha256: str,
        *,
        keep: Sequence[Kept] = (),
        device: torch.device | str = "cpu",
        batch: int = 4,
    ) -> None:
        self.network, self.specs, self.sha256 = network.eval().requires_grad_(False), specs, sha256
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.batch = torch.device(device), batch
        self.keep = tuple(name for name in get_args(Kept) if name == EMBEDDING or name in keep)
        for name, words in (("logits", "logits are"), ("gradient", "a gradient is")):
            if name in self.keep and not isinstance(network, PromptableSam):
                raise UsageError(
                    f"Teacher: {words} wanted of a self-prompting model, expected a promptable one."
                )
        self.cache: TeacherCache | None = None

    @property
    def encoder(self) -> ImageEncoder:
        """Its image encoder."""
        network = self.network
        return network.image_encoder if isinstance(network, PromptableSam) else network.encoder

    def open_cache(self, folder: Path, form: CacheForm = "half", limit: int | None = None) -> TeacherCache:
        """Keep what it makes of views in a folder from now on; see `TeacherCache` for the errors."""
        identity = {
            "teacher": self.sha256,
            "specs": {name: spec.to_json() for name, spec in sorted(self.specs.items())},
            "kept": list(self.keep),
        }
        more = {} if limit is None else {"limit": limit}
        self.cache = TeacherCache(folder, identity, form=form, **more)
        return self.cache

    def arrays(self, views: Sequence[View]) -> list[Arrays]:
        """Arrays of each view as float32, from the cache where they are there; what is not is added to it.

        Raises:
            DataError: the cache cannot take more.
            SpecError: a view of a modality for which the teacher has no spec.
        """
        if self.cache is None:
            return self._computed(views)
        found: list[Arrays | None] = list(self.cache.read([view.key for view in views]))
        lacking = [i for i, entry in enumerate(found) if entry is None]
        if lacking:
            made = self._computed([views[i] for i in lacking])
            self.cache.write({views[i].key: entry for i, entry in zip(lacking, made, strict=True)})
            for i, entry in zip(lacking, made, strict=True):
                found[i] = entry
        return cast(list[Arrays], found)

    def fill(
        self,
        pictures: Sequence[LabelledSlice],
        *,
        rows: Sequence[int] | None = None,
        views: int = 1,
        seed: int = 0,
        progress: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter,
    ) -> Filled:
        """Compute what the cache lacks of every view of the pictures.

        Several processes may do so at once: each begins elsewhere and leaves out what others have done. It may be
        stopped at any time, and goes on where it was.

        Args:
            pictures: to look at.
            rows: indices of those that are wanted; None for all.
            views: number of views of each.
            seed: of the views.
            progress: wraps the parts of the work, each some indices, to show how far it is.

        Raises:
            UsageError: there is no cache.
            DataError: the cache cannot take more; what is there stays.
        """
        if self.cache is None:
            raise UsageError("Teacher.fill: there is no cache, expected one. Call open_cache first.")
        wanted = range(len(pictures)) if rows is None else rows
        parts = [wanted[i : i + self.batch] for i in range(0, len(wanted), self.batch)]
        if not parts:
            return Filled(0, 0)
        start = int(np.random.RandomState(os.getpid()).randint(len(parts)))
        computed = found = 0
        for part in progress([*parts[start:], *parts[:start]]):
            for number in range(views):
                ones = [pictures[row] for row in part]
                keys = [view_key(one.image, one.modality, number, seed) for one in ones]
                lacking = set(self.cache.missing(keys))
                todo = {k: one for k, one in zip(keys, ones, strict=True) if k in lacking}
                found += len(ones) - len(todo)
                if not todo:
                    continue
                made = self._computed(
                    [make_view(o.image, o.label, o.modality, number, seed, o.known) for o in todo.values()]
                )
                self.cache.write(dict(zip(todo, made, strict=True)))
                computed += len(todo)
        return Filled(computed, found)

    @torch.inference_mode()
    def _computed(self, views: Sequence[View]) -> list[Arrays]:
        """Arrays from the network, views of one size at a time."""
        sizes = [spec_of(self.specs, view.modality).size for view in views]
        out: list[Arrays] = [{} for _ in views]
        for size in dict.fromkeys(sizes):
            same = [i for i, s in enumerate(sizes) if s == size]
            for start in range(0, len(same), self.batch):
                rows = same[start : start + self.batch]
                for row, arrays in zip(rows, self._run([views[r] for r in rows]), strict=True):
                    out[row] = arrays
        return out

    def _run(self, views: Sequence[View]) -> list[Arrays]:
        fitted = [apply_spec(view.image, spec_of(self.specs, view.modality)) for view in views]
        image = torch.from_numpy(np.stack([image for image, _ in fitted])).to(self.device)
        energy: list[Tensor] = []
        hook = None
        if "saliency" in self.keep:
            hook = last_norm(self.encoder).register_forward_pre_hook(
                lambda _, args: energy.append(activation_map(args[0]))
            )
        listening: AbstractContextManager[GlobalAttention] = nullcontext([])
        if "rollout" in self.keep:
            listening = global_attention(self.encoder)
        try:
            with listening as heard:
                encoded = self.encoder(
                    image.contiguous(memory_format=torch.channels_last), self._modality(views)
                )
        finally:
            if hook is not None:
                hook.remove()
        rolled = rollout_map(heard).float().cpu().numpy() if heard else None
        out: list[dict[str, NDArray[Any]]] = [{EMBEDDING: x} for x in encoded.embedding.float().cpu().numpy()]
        for row, arrays in enumerate(out):
            if energy:
                arrays["saliency"] = energy[-1][row].cpu().numpy()
            if rolled is not None:
                arrays["rollout"] = rolled[row]
            boxes = [fitted[row][1].to_model([box[:2], box[2:]]) for box in object_boxes(views[row].label)]
            if "gradient" in self.keep:
                asked = boxes or [middle_corners(fitted[row][1])]
                found = gradient_map(cast(PromptableSam, self.network), image[row : row + 1], asked)
                arrays["gradient"] = found.cpu().numpy()
            if "logits" in self.keep:
                arrays |= self._answers(Encoded(encoded.embedding[row : row + 1]), boxes)
        return list(out)

    def _answers(self, encoded: Encoded, boxes: Sequence[Sequence[tuple[float, float]]]) -> Arrays:
        """Logits and quality of the masks that boxes, each two corners in the prompt frame, give on one image."""
        if not boxes:
            side = 4 * encoded.embedding.shape[-1]
            return {"logits": np.zeros((0, side, side), np.float32), "quality": np.zeros(0, np.float32)}
        corners = torch.tensor([[[*a, *b] for a, b in boxes]], dtype=torch.float32, device=self.device)
        found = cast(PromptableSam, self.network).decode(encoded, boxes=corners)
        return {
            "logits": found.mask_logits[0, :, 0].float().cpu().numpy(),
            "quality": found.quality[0, :, 0].float().cpu().numpy(),
        }

    def _modality(self, views: Sequence[View]) -> Tensor:
        """Index of each view's modality, 0 for networks without controllers."""
        if isinstance(self.network, PromptableSam):
            return torch.zeros(len(views), dtype=torch.int64, device=self.device)
        known = self.network.modalities
        if strange := next((v.modality for v in views if v.modality not in known), None):
            raise UsageError(
                f"teacher: modality of a picture is '{strange}', expected one of {', '.join(known)}. Name it."
            )
        return torch.tensor([known.index(v.modality) for v in views], device=self.device)


def load_teacher(
    path: Path | str,
    *,
    family: str | None = None,
    keep: Sequence[Kept] = (),
    device: torch.device | str = "cpu",
    batch: int = 4,
    seed: int = 0,
) -> Teacher:
    """The teacher of a checkpoint, or of no checkpoint.

    Args:
        path: whatever `load_checkpoint` reads, or `random` for a small random network.
        family: see `load_checkpoint`.
        keep: see `Teacher`.
        device: to run on.
        batch: views at once.
        seed: of the random network.

    Raises:
        WeightsError: see `load_checkpoint`.
        UnknownNameError: no such family.
    """
    if str(path) == RANDOM:
        network, specs = _random_network(seed), {ANY_MODALITY: ImageSpec(128)}
        return Teacher(network, specs, state_sha256(network), keep=keep, device=device, batch=batch)
    loaded = load_checkpoint(path, family=family)
    log.info("teacher: %s, %s, %s", loaded.path, loaded.layout, loaded.licence)
    return Teacher(loaded.network, loaded.specs, loaded.sha256, keep=keep, device=device, batch=batch)


def state_sha256(network: nn.Module) -> str:
    """A sha256 of a network's weights, whatever file they may be in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _random_network(seed: int) -> PromptableSam:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = {"name": "sam_vit", "size": 128, "width": 64, "depth": 2, "heads": 2, "global_blocks": [1]}
        return PromptableSam(encoder, mlp_dim=128)
