# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The one way from an image to a mask: command line, bundles, MONAI Label and evaluation all go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.placement import apply_spec, label_map
from monai_effsam.errors import UsageError
from monai_effsam.inference.answers import Decoding, Encoding, Segmentation, results_of
from monai_effsam.inference.clock import StageClock
from monai_effsam.inference.prompted import placed_outline
from monai_effsam.inference.runtimes import PromptArrays, Runtime, open_runtime
from monai_effsam.inference.runtimes.contract import known_modalities, unprompted
from monai_effsam.specs import Prompts, spec_of
from monai_effsam.targets import Target, check_modality, find_targets, prompted_target, targets_of

if TYPE_CHECKING:
    from monai_effsam.data.io import Image

__all__ = ["PRESENT", "Segmenter"]

PRESENT = 0.5
"""A target whose presence is below this is answered "nothing here", unless a user prompts for it."""


class Segmenter:
    """File to mask with one model: encode once, decode for each prompt, or `segment` a whole image.

    A self-prompting model outlines every target of a modality. A promptable one outlines what it is prompted for; the
    modality is optional then, it chooses an `ImageSpec` and what the mask is called (`targets.prompted_target`).

    Args:
        runtime: the model, ready to run; see `open`.
        batch_size: slices of a volume that go through the network together.

    Example:
        >>> segmenter = Segmenter.open("bundles/esp_medsam")                               # doctest: +SKIP
        >>> segmenter.segment(read_image(Path("polyp.png")), "endoscopy").found[0].area_px  # doctest: +SKIP
        12034
    """

    def __init__(self, runtime: Runtime, *, batch_size: int = 4) -> None:
        self.runtime, self.batch_size = runtime, batch_size
        self.model = runtime.model
        self._modalities = known_modalities(
            self.model.targets, self.model.specs, promptable=self.model.promptable
        )

    @classmethod
    def open(
        cls,
        path: Path | str,
        runtime: str | None = None,
        device: str = "cpu",
        *,
        threads: int | None = None,
        family: str | None = None,
        batch_size: int = 4,
    ) -> Segmenter:
        """A segmenter of a model on disk; arguments and errors as of `runtimes.open_runtime`."""
        return cls(open_runtime(path, runtime, device, threads, family), batch_size=batch_size)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self.runtime.device

    @property
    def promptable(self) -> bool:
        """Whether the model outlines what it is prompted for, and nothing by itself."""
        return self.model.promptable

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model knows."""
        return self._modalities

    def encode(self, image: Image, index: int | Sequence[int], modality: str | None = None) -> Encoding:
        """The first half: slices `index` of an image through the encoder.

        Args:
            image: from `data.io.read_image`.
            index: of one slice, or of several.
            modality: one of `modalities`.

        Raises:
            UnknownNameError: the model does not know the modality.
            UsageError: no modality, though the model is self-prompting.
        """
        indices = (index,) if isinstance(index, int) else tuple(index)
        return self.encode_slices([image.rgb(i) for i in indices], modality)

    def encode_slices(self, slices: Sequence[NDArray[np.uint8]], modality: str | None = None) -> Encoding:
        """`encode` for slices (H, W, 3) of one size, 0..255, wherever they come from."""
        number = self.modality_index(modality)
        spec = spec_of(self.model.specs, modality)
        clock = StageClock()
        placed = [apply_spec(rgb, spec) for rgb in slices]
        batch = np.stack([array for array, _ in placed])
        clock.lap("prepare")
        encoded = self.runtime.encode(batch, number)
        clock.lap("encode")
        return Encoding(encoded, placed[0][1], modality, len(placed), clock.ms)

    def decode(
        self, encoding: Encoding, *, targets: Sequence[str] | None = None, prompts: Prompts | None = None
    ) -> Decoding:
        """The second half: masks from an encoding, with or without a user's prompt.

        A pixel gets the most probable of the targets whose probability is at least 0.5 there. A target whose
        presence in a slice is below 0.5 is left out of that slice; with a prompt its presence is not asked.

        Args:
            encoding: from `encode`.
            targets: names of the targets wanted, of all of the modality by default.
            prompts: points and box in source pixels; needs an encoding of one slice, and one target.

        Raises:
            UnknownNameError: no such target.
            UsageError: a target of another modality, a prompt that cannot be used, or none for a promptable model.
        """
        if prompts and len(encoding) != 1:
            raise UsageError(f"prompts: {len(encoding)} slices are encoded, expected one. Prompt a 2D image.")
        if self.promptable:
            return self._outline(encoding, targets, prompts)
        number, modality = self.modality_index(encoding.modality), str(encoding.modality)
        table = targets_of(modality, self.model.targets)
        wanted = table if targets is None else find_targets(targets, modality, self.model.targets)
        columns = [table.index(target) for target in table if target in wanted]
        chosen = tuple(table[column] for column in columns)
        if prompts:
            _check_one(chosen, modality)
        clock = StageClock()
        given = PromptArrays.of(prompts, encoding.placement) if prompts else None
        raw = self.runtime.decode(encoding.encoded, number, given)
        clock.lap("decode")
        logits, quality, presence = (part[:, columns] for part in raw)
        shown = np.ones_like(presence, dtype=bool) if prompts else presence >= PRESENT
        mask = np.stack(
            [label_map(logits[b], shown[b], chosen, encoding.placement) for b in range(len(encoding))]
        )
        clock.lap("place")
        return Decoding(mask, chosen, quality, presence, clock.ms)

    def _outline(
        self, encoding: Encoding, targets: Sequence[str] | None, prompts: Prompts | None
    ) -> Decoding:
        """What a promptable model answers for one prompt."""
        if not prompts:
            raise unprompted(self.model.path)
        target = prompted_target(targets, encoding.modality, self.model.targets)
        rule = spec_of(self.model.specs, encoding.modality).mask_rule
        clock = StageClock()
        raw = self.runtime.decode(encoding.encoded, 0, PromptArrays.of(prompts, encoding.placement))
        clock.lap("decode")
        outline = placed_outline(raw.mask_logits[0], raw.quality[0], encoding.placement, rule)
        mask = outline.masks.astype(np.uint8) * np.uint8(target.value)
        clock.lap("place")
        return Decoding(mask, (target,), raw.quality, raw.presence, clock.ms)

    def segment(
        self,
        image: Image,
        modality: str | None = None,
        *,
        targets: Sequence[str] | None = None,
        prompts: Prompts | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Outline the targets of a modality in an image; of a volume slice by slice.

        Args:
            image: from `data.io.read_image`.
            modality: one of `modalities`.
            targets: names of the targets wanted, of all of the modality by default.
            prompts: points and box in source pixels, for one target of a single picture.
            progress: called with (slices done, slices in all) after each batch.

        Raises:
            UnknownNameError: no such modality or target.
            UsageError: no modality, though the model is self-prompting; no prompt, though it is promptable; a target of
                another modality, or a prompt that cannot be used.
        """
        if prompts:
            if len(image) != 1:
                raise UsageError(
                    f"{image.name}: {len(image)} slices, expected one for a prompt. Prompt a 2D image."
                )
            prompts.check_inside(image.size)
        elif self.promptable:
            raise unprompted(self.model.path)
        mask = np.zeros((len(image), *image.size), np.uint8)
        ms: dict[str, float] = {}
        parts: list[Decoding] = []
        for indices in _batches(len(image), self.batch_size):
            encoding = self.encode(image, indices, modality)
            part = self.decode(encoding, targets=targets, prompts=prompts)
            mask[indices.start : indices.stop] = part.mask
            parts.append(part)
            for stage, time_spent in {**encoding.ms, **part.ms}.items():
                ms[stage] = ms.get(stage, 0.0) + time_spent
            if progress:
                progress(indices.stop, len(image))
        return Segmentation(mask, results_of(image, mask, parts), parts[0].targets, ms)

    def modality_index(self, modality: str | None) -> int:
        """Place of a modality among those of a self-prompting network; 0 for a promptable one, which has none.

        Raises:
            UnknownNameError: the model does not know it.
            UsageError: none is given, though the model is self-prompting.
        """
        if modality is not None:
            check_modality(modality, self.modalities)
        elif not self.promptable:
            raise UsageError(
                f"Segmenter: no modality is given, expected one of {', '.join(self.modalities)}. Name one."
            )
        return 0 if self.promptable or modality is None else self.modalities.index(modality)


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _check_one(chosen: Sequence[Target], modality: str) -> None:
    """Refuse a prompt that does not say what it outlines."""
    if len(chosen) != 1:
        names = ", ".join(target.name for target in chosen)
        raise UsageError(
            f"prompts: {modality} has {len(chosen)} targets, expected one. Choose one of {names}."
        )
