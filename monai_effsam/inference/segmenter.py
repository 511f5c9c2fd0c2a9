# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The one way from an image to a mask: command line, bundles, MONAI Label and evaluation all go through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_effsam.data.placement import apply_spec, label_map
from monai_effsam.errors import UsageError
from monai_effsam.inference.results import TargetResult
from monai_effsam.specs import Placement, Prompts
from monai_effsam.targets import Target, check_modality, find_targets, targets_of

if TYPE_CHECKING:
    from monai_effsam.checkpoints import LoadedModel
    from monai_effsam.data.io import Image
    from monai_effsam.networks.encoders.contract import Encoded

__all__ = ["Decoding", "Encoding", "Segmentation", "Segmenter"]

PRESENT = 0.5
"""A target whose presence is below this is answered "nothing here", unless a user prompts for it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Some slices of one image, encoded once; decode it as often as wanted.

    Args:
        encoded: what the encoder made of B slices.
        placement: how each of them lies in the model's frame.
        modality: name of their modality.
    """

    encoded: Encoded
    placement: Placement
    modality: str

    def __len__(self) -> int:
        """B, the number of slices."""
        return int(self.encoded.embedding.shape[0])


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the decoder answers for B slices, in the geometry of the image.

    Args:
        mask: (B, H, W) uint8, values of the target table.
        targets: the T targets asked for.
        quality: (B, T) the model's own estimate of IoU, 0..1.
        presence: (B, T) probability that the target is there, 0..1.
    """

    mask: NDArray[np.uint8]
    targets: tuple[Target, ...]
    quality: NDArray[np.float32]
    presence: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The answer for a whole image.

    Args:
        mask: (N, H, W) uint8, values of the target table; 0 is "none".
        found: one result for each target asked for, in table order, also for those that were not found.
        ms: time spent in `encode` and `decode` [ms].
    """

    mask: NDArray[np.uint8]
    found: tuple[TargetResult, ...]
    ms: dict[str, float]


class Segmenter:
    """File to mask with one model: encode once, decode for each prompt, or `segment` a whole image.

    Args:
        model: a network with its image specs and target table, from `checkpoints.load_model`.
        device: where the network runs, as torch names it.
        batch_size: slices of a volume that go through the network together.

    Raises:
        UsageError: torch cannot use the device; never a silent run elsewhere.

    Example:
        >>> segmenter = Segmenter(load_model("bundles/esp_medsam"))                        # doctest: +SKIP
        >>> segmenter.segment(read_image(Path("polyp.png")), "endoscopy").found[0].area_px  # doctest: +SKIP
        12034
    """

    def __init__(
        self, model: LoadedModel, device: str | torch.device = "cpu", *, batch_size: int = 4
    ) -> None:
        self.batch_size = batch_size
        self.model = model
        self.network = cast(Any, model.network)  # typed as a contract, not as one class
        try:
            self.device = torch.device(device)
            self.network.eval().to(self.device, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"Segmenter: device '{device}' cannot be used ({reason}). Use 'cpu'.") from error

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model knows."""
        return tuple(self.network.modalities)

    @torch.inference_mode()
    def encode(self, image: Image, index: int | Sequence[int], modality: str) -> Encoding:
        """The first half: slices `index` of an image through the encoder.

        Raises:
            UnknownNameError: the model does not know the modality.
        """
        number = self._number(modality)
        spec = self.model.specs[modality]
        indices = (index,) if isinstance(index, int) else tuple(index)
        placed = [apply_spec(image.rgb(i), spec) for i in indices]
        batch = torch.from_numpy(np.stack([array for array, _ in placed]))
        batch = batch.to(self.device, memory_format=torch.channels_last)
        numbers = torch.full((len(indices),), number, dtype=torch.int64, device=self.device)
        return Encoding(self.network.encode(batch, numbers), placed[0][1], modality)

    @torch.inference_mode()
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
            UsageError: a target of another modality, or a prompt that cannot be used.
        """
        number = self._number(encoding.modality)
        table = targets_of(encoding.modality, self.network.targets)
        wanted = table if targets is None else find_targets(targets, encoding.modality, self.network.targets)
        columns = [table.index(target) for target in table if target in wanted]
        chosen = tuple(table[column] for column in columns)
        given: dict[str, Tensor] = {}
        if prompts:
            _check_prompted(len(encoding), chosen, encoding.modality)
            given = self._prompt_tensors(prompts, encoding.placement)
        decoded = self.network.decode(encoding.encoded, number, **given)
        presence = decoded.presence[:, columns].float().cpu().numpy()
        quality = decoded.quality[:, columns].float().cpu().numpy()
        logits = decoded.mask_logits[:, columns].float().cpu().numpy()
        shown = np.ones_like(presence, dtype=bool) if prompts else presence >= PRESENT
        mask = np.stack(
            [label_map(logits[b], shown[b], chosen, encoding.placement) for b in range(len(encoding))]
        )
        return Decoding(mask, chosen, quality, presence)

    def segment(
        self,
        image: Image,
        modality: str,
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
            UsageError: a target of another modality, or a prompt that cannot be used.
        """
        if prompts:
            if len(image) != 1:
                raise UsageError(
                    f"{image.name}: {len(image)} slices, expected one for a prompt. Prompt a 2D image."
                )
            prompts.check_inside(image.size)
        mask = np.zeros((len(image), *image.size), np.uint8)
        ms = {"encode": 0.0, "decode": 0.0}
        parts: list[Decoding] = []
        for indices in _batches(len(image), self.batch_size):
            start = time.perf_counter()
            encoding = self.encode(image, indices, modality)
            middle = time.perf_counter()
            part = self.decode(encoding, targets=targets, prompts=prompts)
            mask[indices.start : indices.stop] = part.mask
            parts.append(part)
            ms["encode"] += (middle - start) * 1000
            ms["decode"] += (time.perf_counter() - middle) * 1000
            if progress:
                progress(indices.stop, len(image))
        return Segmentation(mask, _results(image, mask, parts), ms)

    def _number(self, modality: str) -> int:
        check_modality(modality, self.modalities)
        return self.modalities.index(modality)

    def _prompt_tensors(self, prompts: Prompts, placement: Placement) -> dict[str, Tensor]:
        """Points, labels and box as the network wants them, in model pixels."""
        given = {}
        if prompts.points:
            points = placement.to_model(prompts.points)
            given["points"] = torch.tensor([points], dtype=torch.float32, device=self.device)  # (1, N, 2)
            given["labels"] = torch.tensor([prompts.labels], dtype=torch.int64, device=self.device)  # (1, N)
        if prompts.box is not None:
            (x0, y0), (x1, y1) = placement.to_model([prompts.box[:2], prompts.box[2:]])
            given["boxes"] = torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32, device=self.device)
        return given


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _check_prompted(slices: int, chosen: Sequence[Target], modality: str) -> None:
    """Refuse a prompt that does not say what it outlines, or where."""
    if slices != 1:
        raise UsageError(f"prompts: {slices} slices are encoded, expected one. Prompt a 2D image.")
    if len(chosen) != 1:
        names = ", ".join(target.name for target in chosen)
        raise UsageError(
            f"prompts: {modality} has {len(chosen)} targets, expected one. Choose one of {names}."
        )


def _results(image: Image, mask: NDArray[np.uint8], parts: Sequence[Decoding]) -> tuple[TargetResult, ...]:
    presence = np.concatenate([part.presence for part in parts])
    quality = np.concatenate([part.quality for part in parts])
    found = []
    for column, target in enumerate(parts[0].targets):
        areas = np.count_nonzero(mask == target.value, axis=(1, 2))
        rows = areas > 0 if areas.any() else presence[:, column] == presence[:, column].max()
        pixels = int(areas.sum())
        area_mm2, volume_ml = _physical(image, pixels)
        found.append(
            TargetResult(
                name=target.name,
                value=target.value,
                area_px=pixels,
                quality=float(quality[rows, column].mean()),
                presence=float(presence[:, column].max()),
                found=pixels > 0,
                area_mm2=area_mm2,
                volume_ml=volume_ml,
            )
        )
    return tuple(found)


def _physical(image: Image, pixels: int) -> tuple[float | None, float | None]:
    """(mm^2, ml) of so many pixels; only what the image's spacing can tell."""
    if image.spacing_mm is None:
        return None, None
    area = pixels * image.spacing_mm[0] * image.spacing_mm[1]
    if image.is_volume:
        return None, None if image.slice_step_mm is None else area * image.slice_step_mm / 1000
    return (area, None) if len(image) == 1 else (None, None)
