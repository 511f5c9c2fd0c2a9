# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training of a promptable network: objects, a box and a click for each, then clicks where the answer is wrong."""

from __future__ import annotations

from typing import NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_effsam.data.balanced import Batch
from monai_effsam.engines.prompting import SimulatedObjects, error_clicks, simulate_objects
from monai_effsam.losses.prompted import PromptedMaskLoss, PromptedTerms
from monai_effsam.networks.encoders import Encoded
from monai_effsam.networks.nets import PromptableSam

__all__ = ["PromptSettings", "PromptableStep", "prompted_loss"]


class PromptSettings(NamedTuple):
    """How the simulated user of a training prompts.

    Attributes:
        objects: drawn from each picture; each is prompted by a box and, apart from that, by a click.
        jitter: standard deviation of each box side, as a fraction of the frame's side.
        rounds: share of the steps that go on to a second round, a third, ...; each adds a click where the mask of the
            round before is wrong, and half of the time hands that mask in.
        multimask: share of the steps in which the first click is answered by three masks.
    """

    objects: int = 2
    jitter: float = 0.015
    rounds: tuple[float, ...] = (0.5, 0.2)
    multimask: float = 0.2


class PromptableStep(nn.Module):
    """Network and loss as one module, so that one call covers a step (also under data parallelism).

    Args:
        network: to be trained.
        settings: of the simulated user.
        seed: of the simulated user.
        loss: of the masks.
    """

    def __init__(
        self,
        network: PromptableSam,
        settings: PromptSettings | None = None,
        *,
        seed: int = 0,
        loss: PromptedMaskLoss | None = None,
    ) -> None:
        super().__init__()
        self.network, self.seed = network, seed
        self.settings = settings or PromptSettings()
        self.loss = loss or PromptedMaskLoss()

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Loss terms of a batch; `loss` is what to minimise."""
        random = np.random.RandomState([self.seed, idist.get_rank(), step])
        objects = simulate_objects(
            batch.label.cpu(), batch.known.cpu(), random, self.settings.objects, jitter=self.settings.jitter
        )
        modality = torch.full((len(batch.image),), batch.modality, device=batch.image.device)
        encoded = self.network.encode(batch.image, modality)
        return prompted_loss(self.network, encoded, objects, random, self.settings, self.loss)


def prompted_loss(
    network: PromptableSam,
    encoded: Encoded,
    objects: SimulatedObjects,
    random: np.random.RandomState,
    settings: PromptSettings,
    loss: PromptedMaskLoss,
) -> dict[str, Tensor]:
    """Loss terms of decoding objects by box and by click, and of the rounds that mend the answers.

    Args:
        network: its prompt encoder and decoder are used.
        encoded: of B images.
        objects: N of each, on any device.
        random: source of randomness.
        settings: of the simulated user.
        loss: of the masks.

    Returns:
        `loss` to minimise, the mean over all rounds; for the log the mask terms by first prompt, `box` and `point`,
        and of the rounds that followed, `mended`; `quality` of the first box.
    """
    device = encoded.embedding.device
    frame = network.prompt_frame(*encoded.embedding.shape[-2:])[1]  # frames are squares
    scale = frame / objects.label.shape[-1]
    user = _User(network, encoded, objects, frame, random, loss)
    more = 0
    while more < len(settings.rounds) and random.rand() < settings.rounds[more]:
        more += 1
    by_box = user.prompt(more, boxes=(objects.boxes * scale).to(device))
    several = bool(random.rand() < settings.multimask)
    by_click = user.prompt(more, click=(objects.clicks * scale).to(device), multimask=several)
    out = {
        "loss": torch.stack([terms.total for terms in (*by_box, *by_click)]).mean(),
        "box": by_box[0].mask,
        "point": by_click[0].mask,
        "quality": by_box[0].quality,
    }
    if more:
        out["mended"] = torch.stack([terms.mask for terms in (*by_box[1:], *by_click[1:])]).mean()
    return out


class _User:
    """One simulated user in front of a batch of encoded images."""

    def __init__(
        self,
        network: PromptableSam,
        encoded: Encoded,
        objects: SimulatedObjects,
        frame: int,
        random: np.random.RandomState,
        loss: PromptedMaskLoss,
    ) -> None:
        height, width = encoded.embedding.shape[-2:]
        device = encoded.embedding.device
        self.network, self.encoded, self.frame, self.random, self.loss = network, encoded, frame, random, loss
        self.label = F.adaptive_avg_pool2d(objects.label.to(device), (4 * height, 4 * width))
        self.valid = objects.valid.to(device)

    def prompt(
        self, more: int, *, boxes: Tensor | None = None, click: Tensor | None = None, multimask: bool = False
    ) -> list[PromptedTerms]:
        """Terms of a first prompt, (B, N, 4) or (B, N, 2) in the prompt frame, and of `more` clicks after it."""
        points = None if click is None else click[:, :, None]
        labels = None if points is None else torch.ones_like(points[..., 0], dtype=torch.int64)
        masks: Tensor | None = None
        terms: list[PromptedTerms] = []
        for number in range(1 + more):
            found = self.network.decode(
                self.encoded,
                points=points,
                labels=labels,
                boxes=boxes,
                masks=masks,
                multimask=multimask and number == 0,
            )
            terms.append(self.loss(found.mask_logits, found.quality, self.label, self.valid))
            if number == more:
                break
            best = _best(found.mask_logits, found.quality).detach()
            masks = best if self.random.rand() < 0.5 else None  # not every viewer hands it in
            place, side = error_clicks(best.cpu() > 0, self.label.cpu() >= 0.5, self.random)
            place, side = (place * self.frame / best.shape[-1]).to(best)[:, :, None], side.to(best.device)
            points = place if points is None else torch.cat([points, place], 2)
            labels = side[:, :, None] if labels is None else torch.cat([labels, side[:, :, None]], 2)
        return terms


def _best(logits: Tensor, quality: Tensor) -> Tensor:
    """(B, N, M, h, w) -> (B, N, h, w), the mask that the network thinks best."""
    place = quality.argmax(2)[:, :, None, None, None].expand(-1, -1, 1, *logits.shape[-2:])
    return logits.gather(2, place)[:, :, 0]
