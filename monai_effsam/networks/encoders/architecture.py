# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a searched encoder looks like, as frozen data: stages of operations, neck, grid, and the decoder it asks for.

It lies on the floor of the encoders: the encoder is built from it, the nets above read the decoder's shape, and the
search (`monai_effsam.nas`) may import it. Whether an operation exists is looked up one floor below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

from monai_effsam.errors import SpecError, UnknownNameError
from monai_effsam.networks.blocks.operations import INVERTED, LEAST_STEP, OPERATIONS, SKIP, WIDTH_STEP

__all__ = [
    "CONV_ENTRY",
    "NECK_KINDS",
    "SIZE_STEP",
    "TRUNK_KINDS",
    "Architecture",
    "DecoderShape",
    "NeckShape",
    "StageShape",
]

SIZE_STEP = 32
"""The model size is a multiple of it [px], and no stage has a larger stride."""

NECK_KINDS: tuple[str, ...] = ("separable", "dense")
"""How the neck makes the embedding: depthwise 3x3 and 1x1 convolution, or one 3x3 convolution."""

TRUNK_KINDS: tuple[str, ...] = ("plain", "inverted", "inverted_same")
"""Stem and entries of stages: 3x3 convolutions; MobileNetV2's, with ReLU6 everywhere; these as TensorFlow pads them."""

CONV_ENTRY = "conv"
"""What leads to a stage of a plain trunk: a 3x3 convolution of stride 2."""

_FORMAT = 1


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_multiple(what: str, value: Any, step: int = WIDTH_STEP) -> None:
    if not _whole(value) or value < step or value % step:
        raise SpecError(f"Architecture: {what} is {value}, expected a positive multiple of {step}.")


@dataclass(frozen=True)
class StageShape:
    """Blocks at one resolution.

    Args:
        stride: image pixels a step of its map.
        width: C of its map.
        ops: names of its operations, in order; none leaves only the convolution that leads to it. `skip` is dropped,
            so that equal networks are equal data.
        entry: what leads to it: `CONV_ENTRY`, or in an inverted trunk the name of an inverted residual.

    Raises:
        SpecError: an impossible stride or width.
        UnknownNameError: no such operation, or one that is for reference only.
    """

    stride: int
    width: int
    ops: tuple[str, ...] = ()
    entry: str = CONV_ENTRY

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.stride not in (4, 8, 16, SIZE_STEP):
            raise SpecError(f"Architecture: stride of a stage is {self.stride}, expected 4, 8, 16 or 32.")
        where = f"width of the stage at stride {self.stride}"
        _check_multiple(where, self.width, LEAST_STEP)
        if self.entry != CONV_ENTRY and self.entry not in INVERTED:
            kind = f"Architecture: stage at stride {self.stride}: entry"
            raise UnknownNameError(kind, str(self.entry), (CONV_ENTRY, *INVERTED))
        known = [name for name, operation in OPERATIONS.items() if not operation.reference]
        for name in self.ops:
            if name not in known:
                kind = f"Architecture: stage at stride {self.stride}: operation"
                raise UnknownNameError(kind, str(name), known)
            _check_multiple(f"{where}, for {name},", self.width, OPERATIONS[name].step)
        object.__setattr__(self, "ops", tuple(name for name in self.ops if name != SKIP))


@dataclass(frozen=True)
class NeckShape:
    """Where the maps of all stages that are no finer than the embedding meet.

    Args:
        width: C of their sum.
        kind: one of `NECK_KINDS`.

    Raises:
        SpecError: an impossible width.
        UnknownNameError: no such kind.
    """

    width: int = 64
    kind: str = "separable"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_multiple("width of the neck", self.width)
        if self.kind not in NECK_KINDS:
            raise UnknownNameError("Architecture: neck", str(self.kind), NECK_KINDS)


@dataclass(frozen=True)
class DecoderShape:
    """Of the two-way transformer in the mask decoder; segment-anything's is 256, 2 and 2048.

    Args:
        width: C of the embedding and of all tokens.
        depth: its blocks.
        mlp_dim: hidden width of its MLPs.

    Raises:
        SpecError: impossible numbers.
    """

    width: int = 256
    depth: int = 2
    mlp_dim: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_multiple("width of the decoder", self.width)
        for name in ("depth", "mlp_dim"):
            if not _whole(value := getattr(self, name)) or value < 1:
                raise SpecError(f"Architecture: {name} of the decoder is {value}, expected at least 1.")


@dataclass(frozen=True)
class Architecture:
    """A searched encoder and its decoder's shape; equal data have one `id`, on any machine.

    Args:
        stages: fine to coarse, each of twice the stride of the one before, the first at 4 or 8. In an inverted trunk
            the first is at 4, and one may have the stride of the one before and another width.
        stride: image pixels a step of the embedding, that of some stage.
        size: model size that it is meant for [px].
        neck: from stages to embedding.
        decoder: that it asks for.
        trunk: one of `TRUNK_KINDS`.

    Raises:
        UnknownNameError: no such kind of trunk.
        SpecError: parts that do not fit.

    Example:
        >>> stages = (StageShape(4, 16), StageShape(8, 32, ("dwsep_k5",)), StageShape(16, 64, ("mbconv_k3_e2",)))
        >>> small = Architecture(stages, stride=16)
        >>> small.id, small.grid
        ('e89fc304e1fd', 16)
        >>> Architecture.from_json(small.to_json()) == small
        True
    """

    stages: tuple[StageShape, ...]
    stride: int = 16
    size: int = 256
    neck: NeckShape = NeckShape()
    decoder: DecoderShape = DecoderShape()
    trunk: str = TRUNK_KINDS[0]

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.trunk not in TRUNK_KINDS:
            raise UnknownNameError("Architecture: trunk", str(self.trunk), TRUNK_KINDS)
        strides = [stage.stride for stage in self.stages]
        firsts, steps, wanted = {4, 8}, {2}, "4 or 8 and twice"
        if self.inverted:
            firsts, steps, wanted = {4}, {1, 2}, "4 and as much or twice"
        if not strides or strides[0] not in firsts or any(b // a not in steps for a, b in pairwise(strides)):
            raise SpecError(
                f"Architecture: strides of the stages are {strides}, expected {wanted} as much each time."
            )
        for stage in self.stages:
            if (stage.entry != CONV_ENTRY) != self.inverted:
                raise SpecError(
                    f"Architecture: entry of the stage at stride {stage.stride} is {stage.entry}, expected "
                    f"{'an inverted residual' if self.inverted else CONV_ENTRY} in a trunk of the kind {self.trunk}."
                )
        if self.stride not in strides:
            raise SpecError(
                f"Architecture: stride is {self.stride}, expected that of a stage, one of {strides}."
            )
        if not _whole(self.size) or self.size < SIZE_STEP or self.size % SIZE_STEP:
            raise SpecError(
                f"Architecture: size is {self.size}, expected a positive multiple of {SIZE_STEP}."
            )

    @property
    def inverted(self) -> bool:
        """Whether stem and entries are those of a MobileNetV2."""
        return self.trunk != TRUNK_KINDS[0]

    @property
    def levels(self) -> dict[int, int]:
        """Strides of the maps that the neck sums, fine to coarse, and their widths."""
        return {stage.stride: stage.width for stage in self.stages if stage.stride >= self.stride}

    @property
    def grid(self) -> int:
        """Side of the embedding at the model size, in cells."""
        return self.size // self.stride

    @cached_property
    def id(self) -> str:
        """Twelve digits of the sha256 of its JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, the inverse of `from_json`."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if not self.inverted:  # as before there were others, so that their ids stay
            del plain["trunk"]
            for stage in plain["stages"]:
                del stage["entry"]
        return {"format": _FORMAT, **plain}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Architecture:
        """From a dictionary as `to_json` makes it.

        Raises:
            SpecError: unknown or missing keys, a newer format, or parts that do not fit.
            UnknownNameError: an operation or neck that does not exist.
        """
        if not isinstance(values, Mapping):
            raise SpecError(f"Architecture: is a {type(values).__name__}, expected an object of JSON.")
        plain = dict(values)
        found = plain.pop("format", _FORMAT)
        if not _whole(found) or found > _FORMAT:
            raise SpecError(
                f"Architecture: format is {found}, expected at most {_FORMAT}. Update the package."
            )
        stages = plain.get("stages")
        if isinstance(stages, list | tuple):
            plain["stages"] = tuple(_part(StageShape, stage, f"stage {i}") for i, stage in enumerate(stages))
        elif stages is not None:
            raise SpecError("Architecture: stages are no list, expected one of objects.")
        if "neck" in plain:
            plain["neck"] = _part(NeckShape, plain["neck"], "neck")
        if "decoder" in plain:
            plain["decoder"] = _part(DecoderShape, plain["decoder"], "decoder")
        return _part(cls, plain, "the whole")

    def promptable(self) -> dict[str, Any]:
        """Options of `PromptableSam` with this encoder and the decoder that it asks for."""
        return {
            "image_encoder": {"name": "searched", "architecture": self.to_json()},
            "mlp_dim": self.decoder.mlp_dim,
            "decoder_depth": self.decoder.depth,
        }

    def self_prompting(self) -> dict[str, Any]:
        """Options `encoder` and `decoder` of `EspMedSam`, the finer maps as skips of its upscaling."""
        finer = [stride for stride in (16, 8, 4, 2) if stride < self.stride]
        return {
            "encoder": {"name": "searched", "architecture": self.to_json(), "skips": finer},
            "decoder": {
                "mlp_dim": self.decoder.mlp_dim,
                "depth": self.decoder.depth,
                "channels": [96, 48, 24, 24][: len(finer)],
            },
        }


_Part = TypeVar("_Part", StageShape, NeckShape, DecoderShape, Architecture)


def _part(kind: type[_Part], values: Any, where: str) -> _Part:
    """One part from plain data; every wrong key is told."""
    if not isinstance(values, Mapping):
        raise SpecError(f"Architecture: {where} is a {type(values).__name__}, expected an object.")
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SpecError(
            f"Architecture: {where} has unknown keys {', '.join(unknown)}, expected some of {', '.join(known)}. "
            "The file was made by a newer version, or mistyped."
        )
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise SpecError(f"Architecture: {where} is incomplete or has wrong types ({error}).") from error
