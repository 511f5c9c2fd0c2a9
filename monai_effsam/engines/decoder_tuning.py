# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""KD SAM's second stage: the mask decoder learns from labels to live with the student's embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.data.distilling import ViewBatch
from monai_effsam.engines.promptable import PromptSettings, prompted_loss
from monai_effsam.engines.prompting import SimulatedObjects, simulate_objects
from monai_effsam.losses.prompted import PromptedMaskLoss
from monai_effsam.networks.encoders import Encoded
from monai_effsam.networks.nets import PromptableSam

__all__ = ["TuningStep", "prompted_dice"]


class TuningStep(nn.Module):
    """Network and loss of prompted masks as one module.

    While the decoder alone is tuned, encoder and prompt encoder are frozen and stay in eval mode: without gradients
    alone, BatchNorm would go on following the batches, and the decoder would be tuned to an encoder that nobody ships.

    Args:
        network: to be trained.
        whole: train everything, from images; otherwise the decoder alone, on the embeddings of the batches.
        settings: of the simulated user.
        seed: of the simulated user.
        loss: of the masks.
    """

    def __init__(
        self,
        network: PromptableSam,
        *,
        whole: bool = False,
        settings: PromptSettings | None = None,
        seed: int = 0,
        loss: PromptedMaskLoss | None = None,
    ) -> None:
        super().__init__()
        self.network, self.whole, self.seed = network, whole, seed
        self.settings, self.loss = settings or PromptSettings(), loss or PromptedMaskLoss()
        network.requires_grad_(True)
        if not whole:
            for part in self._frozen():
                part.requires_grad_(False)

    def _frozen(self) -> tuple[nn.Module, nn.Module]:
        return self.network.image_encoder, self.network.prompt_encoder

    def train(self, mode: bool = True) -> TuningStep:
        """As of any module, but what is frozen stays in eval mode."""
        super().train(mode)
        if not self.whole:
            for part in self._frozen():
                part.eval()
        return self

    def forward(self, batch: ViewBatch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch; `loss` is what to minimise."""
        random = np.random.RandomState([self.seed, step])
        objects = simulate_objects(
            batch.label.cpu(), batch.known.cpu(), random, self.settings.objects, jitter=self.settings.jitter
        )
        encoded = _encoded(self.network, batch, self.whole)
        return prompted_loss(self.network, encoded, objects, random, self.settings, self.loss)


def _encoded(network: PromptableSam, batch: ViewBatch, whole: bool) -> Encoded:
    return network.encode(batch.image, batch.modality) if whole else Encoded(batch.target)


@torch.no_grad()
def prompted_dice(
    network: PromptableSam,
    batches: Iterable[ViewBatch],
    *,
    whole: bool = False,
    device: torch.device | str = "cpu",
    jitter: float = 0.01,
) -> dict[str, float]:
    """Dice of one object a picture, prompted by a box and, apart from that, by a click; the same ones every time.

    Args:
        network: put in eval mode.
        batches: with labels; pictures that hold nothing do not count.
        whole: encode the images, rather than take the embeddings of the batches.
        device: of the network.
        jitter: standard deviation of each box side, as a fraction of the frame's side.

    Returns:
        `box`, `point`, and `dice`, the mean of both; 0 where nothing is labelled.
    """
    network.eval()
    found: dict[str, list[Tensor]] = {"box": [], "point": []}
    for number, item in enumerate(batches):
        objects = simulate_objects(item.label, item.known, np.random.RandomState(number), 1, jitter=jitter)
        batch = item.to(device)
        encoded = _encoded(network, batch, whole)
        frame = network.prompt_frame(*encoded.embedding.shape[-2:])[1]
        scale = frame / objects.label.shape[-1]
        boxes, points = (objects.boxes * scale).to(device), (objects.clicks * scale).to(device)[:, :, None]
        labels = torch.ones_like(points[..., 0], dtype=torch.int64)
        for name, masks in (
            ("box", network.decode(encoded, boxes=boxes)),
            ("point", network.decode(encoded, points=points, labels=labels)),
        ):
            found[name].append(_dice(masks.mask_logits.cpu(), objects))
    means = {
        name: float(torch.cat(rows).mean()) if len(torch.cat(rows)) else 0.0 for name, rows in found.items()
    }
    return {"dice": (means["box"] + means["point"]) / 2, **means}


def _dice(logits: Tensor, objects: SimulatedObjects) -> Tensor:
    """Dice of the first of each prompt's masks, (B, 1, M, h, w), in the label's grid; one value a valid row."""
    size = tuple(objects.label.shape[-2:])
    mask = F.interpolate(logits[:, :, 0].float(), size=size, mode="bilinear", align_corners=False) > 0
    label = objects.label > 0.5
    both = (mask & label).flatten(1).sum(1)
    either = mask.flatten(1).sum(1) + label.flatten(1).sum(1)
    return (2 * both / either.clamp(min=1))[objects.valid[:, 0]]
