# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Students by name: an encoder, the input that it wants, and SAM's decoder as its teacher has it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from monai_effsam.checkpoints.transfer import promptable_weights
from monai_effsam.engines.build import load_trunk
from monai_effsam.errors import DataError, SpecError, UnknownNameError, UsageError, WeightsError
from monai_effsam.nas.inheritance import MobileTrunk
from monai_effsam.nas.inheritance import inherit as inherit_trunk
from monai_effsam.nas.space import read_architecture
from monai_effsam.networks.encoders import ENCODERS, Architecture, SearchedEncoder
from monai_effsam.networks.foreign import import_timm
from monai_effsam.networks.nets import EspMedSam, PromptableSam
from monai_effsam.specs import ANY_MODALITY, ImageSpec

__all__ = ["STUDENTS", "Student", "build_student", "decoder_shape", "find_student", "student_of"]

log = logging.getLogger(__name__)

_HALF = (0.5, 0.5, 0.5)
_MXNET_MEAN, _MXNET_STD = (0.452223, 0.425705, 0.377568), (0.285514, 0.278885, 0.282310)


@dataclass(frozen=True)
class Student:
    """What a student is made of.

    Args:
        encoder: options of `build_encoder`.
        spec: the input that it wants.
        mlp_dim: hidden width of the decoder's transformer; None for the teacher's.
        drawn: whether prompts are drawn as a mask too; None for as the teacher has it.
        decoder_depth: blocks of that transformer; None for the teacher's.
    """

    encoder: Mapping[str, Any] = field(default_factory=dict)
    spec: ImageSpec = field(default_factory=lambda: ImageSpec(256))
    mlp_dim: int | None = None
    drawn: bool | None = None
    decoder_depth: int | None = None

    def specs(self, teacher: Mapping[str, ImageSpec]) -> dict[str, ImageSpec]:
        """The spec of any modality, and of those whose intensities the teacher treats in their own way."""
        own = {name: s.intensity for name, s in teacher.items() if name and s.intensity == "tissue"}
        return {ANY_MODALITY: self.spec} | {
            name: replace(self.spec, intensity=rule) for name, rule in own.items()
        }


STUDENTS: Mapping[str, Student] = {
    "kd_sam_resnet50": Student(
        {"name": "timm_sam_neck", "model": "resnet50", "stride": 8}, ImageSpec(256, stride=8)
    ),
    "kd_sam_resnet50_n6": Student(
        {"name": "timm_sam_neck", "model": "resnet50", "stride": 8, "refinements": 4},
        ImageSpec(256, stride=8),
    ),
    "kd_sam_resnetv2_50": Student(
        {"name": "timm_sam_neck", "model": "resnetv2_50", "level": 3, "pre_activation": True, "stride": 8},
        ImageSpec(256, mean=_MXNET_MEAN, std=_MXNET_STD, stride=8),
    ),
    "tiny_vit": Student({"name": "tiny_vit"}, ImageSpec(512)),
    "light": Student(
        {"name": "timm", "model": "tf_efficientnet_lite0"},
        ImageSpec(320, mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    ),
}
"""Name -> student. A timm trunk of any other name is one too, at 256 px and stride 8, by `timm_pyramid`."""


def find_student(name: str, size: int | None = None) -> Student:
    """A student by its name in `STUDENTS`, by the name of a timm trunk, or from a recipe.

    Args:
        name: or a JSON file with `encoder`, options of `build_encoder`, and `spec`, fields of `ImageSpec`; `mlp_dim`,
            `drawn` and `decoder_depth` may be there too. Or the `architecture.json` of a searched network.
        size: model size [px] instead of its own.

    Raises:
        UnknownNameError: neither a student nor a trunk.
        UsageError: a recipe that cannot be understood, or a size that the encoder cannot take.
    """
    if name in STUDENTS:
        student = STUDENTS[name]
    elif name.endswith(".json"):
        student = _read(Path(name))
    else:
        student = _of_trunk(name)
    if size is None:
        return student
    try:
        encoder = dict(student.encoder)
        if "size" in encoder:  # of networks that learn positions
            encoder["size"] = size
        return replace(student, encoder=encoder, spec=replace(student.spec, size=size))
    except SpecError as error:
        raise UsageError(f"student {name}: {error}") from error


def build_student(
    student: Student,
    teacher: PromptableSam | EspMedSam,
    trunk: Path | None = None,
    seed: int = 0,
    *,
    inherit: bool = False,
    ancestor: MobileTrunk | None = None,
) -> tuple[PromptableSam, dict[str, Any]]:
    """The student's network, its prompt encoder and mask decoder the teacher's.

    Args:
        student: what to build.
        teacher: whose prompt encoder and decoder are taken; of a self-prompting one nothing fits.
        trunk: weights of the encoder's timm trunk, `.safetensors`.
        seed: of what has no weights.
        inherit: the encoder starts from the teacher's too, for the like encoder at a smaller model size.
        ancestor: pretrained trunk that a searched encoder starts from.

    Returns:
        The network and its options for `save_model`.

    Raises:
        UsageError: an encoder that cannot be built, or that does not take the spec's size or stride, or that is not
            searched and is to have an ancestor.
        WeightsError: embeddings of another width than the teacher's, or a trunk that does not fit.
    """
    encoder, options = dict(student.encoder), _options(student, teacher)
    built = {**options["image_encoder"], **({"fold": False} if trunk and encoder["name"] == "timm" else {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = PromptableSam(**{**options, "image_encoder": built})
        except (TypeError, RuntimeError, ValueError) as error:
            raise UsageError(f"student: its encoder {encoder} cannot be built ({error}). Mend it.") from error
    own = network.image_encoder
    if own.stride != student.spec.stride or student.spec.size % own.size_divisor:
        raise UsageError(
            f"student: size is {student.spec.size} and stride {student.spec.stride}, expected a multiple of "
            f"{own.size_divisor} and stride {own.stride}. Give another --size."
        )
    theirs = teacher.image_encoder if isinstance(teacher, PromptableSam) else teacher.encoder
    if theirs.embed_channels != own.embed_channels:
        raise WeightsError(
            f"teacher: its embedding has {theirs.embed_channels} channels, expected the student's "
            f"{own.embed_channels}. Set embed_channels in a recipe for the student."
        )
    if trunk is not None:
        load_trunk(own, trunk)
    if ancestor is not None:
        if not isinstance(own, SearchedEncoder):
            raise UsageError(
                f"student: its encoder is '{encoder['name']}', which inherits nothing from {ancestor.name}, expected a "
                "searched one. Give the architecture.json of a search, or --trunk for the trunk of a timm network."
            )
        inherit_trunk(own, ancestor, mean=student.spec.mean, std=student.spec.std)
    state = network.state_dict()
    fits = promptable_weights(state, teacher.state_dict())
    taken = {k: v for k, v in fits.items() if inherit or not k.startswith("image_encoder.")}
    if inherit and not any(k.startswith("image_encoder.") for k in taken):
        raise WeightsError(
            "teacher: none of its encoder's tensors fits the student's, expected the like encoder. Leave inherit out."
        )
    network.load_state_dict({**state, **taken})
    log.info("student: %d tensors taken from the teacher, %d of its own", len(taken), len(state) - len(taken))
    return network, options


def _options(student: Student, teacher: PromptableSam | EspMedSam) -> dict[str, Any]:
    """Keyword arguments of `PromptableSam`; what the student leaves open is as in the teacher's decoder."""
    # a decoder that nobody has trained yet does not learn to read SAM's codes from a few pictures: it is drawn for
    shape, drawn = {"mlp_dim": PromptableSam.MLP_DIM, "decoder_depth": PromptableSam.DECODER_DEPTH}, True
    if isinstance(teacher, PromptableSam):
        shape, drawn = decoder_shape(teacher), teacher.drawn
    return {
        "image_encoder": {"modalities": 0, **student.encoder},
        "prompt_size": None,
        "mlp_dim": student.mlp_dim or shape["mlp_dim"],
        "decoder_depth": student.decoder_depth or shape["decoder_depth"],
        "drawn": drawn if student.drawn is None else student.drawn,
    }


def decoder_shape(network: PromptableSam) -> dict[str, int]:
    """Options of `PromptableSam` for a decoder like a network's: `mlp_dim` and `decoder_depth`."""
    layers = network.mask_decoder.transformer.layers
    return {"mlp_dim": len(layers[0].mlp.lin1.weight), "decoder_depth": len(layers)}


def _of_trunk(name: str) -> Student:
    """A timm trunk behind `timm_pyramid`."""
    timm = import_timm()
    if not timm.is_model(name):
        raise UnknownNameError("student", name, [*STUDENTS, *timm.list_models(f"*{name[:6]}*")])
    config = timm.get_pretrained_cfg(name)
    mean, std = (config.mean, config.std) if config else (_HALF, _HALF)
    encoder = {"name": "timm_pyramid", "model": name, "stride": 8}
    return Student(encoder, ImageSpec(256, mean=tuple(mean), std=tuple(std), stride=8))


def _read(path: Path) -> Student:
    """A student from JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "stages" in content:
            return student_of(read_architecture(path))
        encoder, spec = dict(content["encoder"]), ImageSpec.from_json(content["spec"])
        rest = {name: content.get(name) for name in ("mlp_dim", "drawn", "decoder_depth")}
    except DataError:  # of an architecture, which names its file
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path}: describes no student ({type(error).__name__}: {error}), expected JSON with 'encoder' and 'spec'. "
            "Mend it."
        ) from error
    if encoder.get("name") not in ENCODERS:
        raise UnknownNameError(f"{path}: encoder", str(encoder.get("name")), ENCODERS)
    return Student(encoder, spec, **rest)


def student_of(architecture: Architecture) -> Student:
    """A searched network as a student, at the size that it is meant for."""
    options = architecture.promptable()
    return Student(
        options["image_encoder"],
        ImageSpec(architecture.size, stride=architecture.stride),
        options["mlp_dim"],
        decoder_depth=options["decoder_depth"],
    )
