# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One door for checkpoints: SAM, MedSAM, MobileSAM, TinySAM, LiteMedSAM and the models of this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_effsam.checkpoints.description import check_spec, is_described
from monai_effsam.checkpoints.families import FAMILIES, OWN_FAMILY, published_as
from monai_effsam.checkpoints.model_file import LoadedModel, find_model, fit_weights, read_model
from monai_effsam.checkpoints.reading import md5_of, read_plain
from monai_effsam.checkpoints.recognise import Layout, plain_state, recognise, without_unused
from monai_effsam.errors import UnknownNameError, WeightsError
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ANY_MODALITY, PROMPTABLE, ImageSpec
from monai_effsam.targets import TARGETS

__all__ = ["LoadedCheckpoint", "load_checkpoint"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network ready to run, and what is known of the file that it came from.

    Args:
        network: in eval mode.
        specs: modality -> how the network wants its input; under "" that of all which are not named.
        family: name in `FAMILIES`, or `effsam`.
        layout: what keys and shapes tell, `vit_b` for one.
        licence: of the weights, as their authors state it.
        sha256: of the file.
        path: of the file.
        doubts: other families that this file may be of and that want another input; empty where it is known.
        own: of a model of this package all that its `model.json` tells; None for weights of others.
        options: keyword arguments that build the network again.
    """

    network: PromptableSam | EspMedSam
    specs: Mapping[str, ImageSpec]
    family: str
    layout: str
    licence: str
    sha256: str
    path: Path
    doubts: tuple[str, ...] = ()
    own: LoadedModel | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> ImageSpec:
        """The spec of any modality, or that of the first."""
        return self.specs.get(ANY_MODALITY) or next(iter(self.specs.values()))

    @property
    def model(self) -> LoadedModel:
        """What a runtime or an export takes: `own`, or a promptable model that weights of others make."""
        if self.own is not None:
            return self.own
        card = {"kind": PROMPTABLE, "name": self.family, "family": self.family, "licence": self.licence}
        card["sha256"] = self.sha256
        return LoadedModel(self.network, self.specs, TARGETS, card, self.path)


def load_checkpoint(
    path: Path | str,
    *,
    family: str | None = None,
    sha256: str | None = None,
    spec: ImageSpec | None = None,
) -> LoadedCheckpoint:
    """The network of a checkpoint, recognised by its keys and shapes, with the input that it wants.

    Weights load strictly. MedSAM cannot be told from SAM by its keys: a ViT that is no published file is taken for
    SAM, with a logged warning, unless the family is given.

    Args:
        path: a file of weights, or the run or bundle folder of a model of this package.
        family: a name in `FAMILIES`, or `effsam`; None to recognise it.
        sha256: checksum that the file must have.
        spec: input of weights that were tuned with another one than their family's.

    Raises:
        WeightsError: missing, damaged, wrong checksum, a pickle that wants to run code, another family than the one
            given, a network that is not built here, weights or a spec that do not fit it.
        UnknownNameError: no such family.
    """
    if family is not None and family not in (*FAMILIES, OWN_FAMILY):
        raise UnknownNameError("family", family, (*FAMILIES, OWN_FAMILY))
    file = find_model(Path(path))
    if is_described(file):
        return _own(file, family, sha256, spec)
    content, found = read_plain(file, sha256)
    state = plain_state(content, file)
    layout = recognise(state, file)
    if layout.families == (OWN_FAMILY,):
        return _own(file, family, sha256, spec)
    chosen, doubts = _choose(file, found, layout, family)
    wanted = spec or replace(FAMILIES[chosen].spec, size=layout.size)
    if doubts and spec is None:
        others = " and ".join(FAMILIES[name].title for name in doubts)
        _log.warning(
            "%s: taken for %s, but %s has the same keys and wants other pixels. Name the family to be sure.",
            file,
            FAMILIES[chosen].title,
            others,
        )
    network = _build(state, layout, wanted, file)
    return LoadedCheckpoint(
        network,
        {ANY_MODALITY: wanted},
        chosen,
        layout.name,
        FAMILIES[chosen].licence,
        found,
        file,
        doubts,
        options={"image_encoder": dict(layout.encoder), "prompt_size": wanted.prompt_size},
    )


def _own(file: Path, family: str | None, sha256: str | None, spec: ImageSpec | None) -> LoadedCheckpoint:
    """A model of this package, with the description beside it."""
    if family not in (None, OWN_FAMILY):
        raise WeightsError(
            f"{file}: is a model of this package, expected a checkpoint of {FAMILIES[family].title}. Give no family."
        )
    if spec is not None:
        raise WeightsError(f"{file}: has specs in its model.json, expected none to be given. Leave spec out.")
    model, found = read_model(file, sha256)
    licence = str(model.card.get("licence") or model.card.get("terms") or "see the model card of its bundle")
    layout = "promptable_sam" if model.promptable else "esp_medsam"
    return LoadedCheckpoint(
        model.network,
        model.specs,
        OWN_FAMILY,
        layout,
        licence,
        found,
        file,
        own=model,
        options=model.card["network"],
    )


def _choose(file: Path, sha256: str, layout: Layout, family: str | None) -> tuple[str, tuple[str, ...]]:
    """The family of a checkpoint of others, and those that it may be of instead."""
    if family is not None and family not in layout.families:
        wanted = FAMILIES[family].title if family in FAMILIES else "a model of this package"
        titles = " or ".join(FAMILIES[name].title for name in layout.families)
        raise WeightsError(
            f"{file}: has the keys of {titles}, expected those of {wanted}. Give the family "
            f"{' or '.join(layout.families)}, or none."
        )
    published = published_as(sha256) or published_as(md5_of(file))
    if family is not None and published is not None and published != family:
        raise WeightsError(
            f"{file}: is the published file of {FAMILIES[published].title}, expected {FAMILIES[family].title}'s. "
            f"Give the family {published}, or none."
        )
    chosen = family or published or layout.families[0]
    doubts = tuple(n for n in layout.families if FAMILIES[n].spec != FAMILIES[chosen].spec)
    return chosen, () if family or published else doubts


def _build(state: Mapping[str, Tensor], layout: Layout, spec: ImageSpec, file: Path) -> PromptableSam:
    """The network of a layout with these weights, in eval mode."""
    network = PromptableSam(layout.encoder, prompt_size=spec.prompt_size)
    check_spec(network, spec, f"{file}: ImageSpec", "Use the spec that the weights were trained with.")
    fit_weights(network, without_unused(state), file, "Use the file as its authors published it.")
    return network.eval()
