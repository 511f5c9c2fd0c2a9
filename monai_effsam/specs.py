# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How an encoder wants its input (`ImageSpec`), how one image lies in it (`Placement`), and prompts.

Plain frozen data, no tensors: these travel with checkpoints, exports and requests. Points are (x, y) and boxes
(x0, y0, x1, y1) in pixels of the source image, the top left corner of the top left pixel at (0, 0); sizes are
(H, W).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from monai_effsam.errors import SpecError, UsageError

__all__ = [
    "ANY_MODALITY",
    "CLASSIFIER",
    "PROMPTABLE",
    "SELF_PROMPTING",
    "ImageSpec",
    "Intensity",
    "Interpolation",
    "MaskRule",
    "Placement",
    "PromptRule",
    "Prompts",
    "Resize",
    "spec_of",
]

SELF_PROMPTING, PROMPTABLE = "self_prompting", "promptable"
"""Kinds of models, as their files tell: one outlines its targets by itself, the other what it is prompted for."""

CLASSIFIER = "classifier"
"""Kind of a model that names what it is shown and outlines nothing."""

ANY_MODALITY = ""
"""Under this stands the `ImageSpec` of every modality that a promptable model has no own one for."""

Resize = Literal["stretch", "longest"]
Intensity = Literal["uint8", "minmax", "tissue"]
Interpolation = Literal["auto", "area", "pillow", "spline"]
PromptRule = Literal["exact", "truncated"]
MaskRule = Literal["direct", "frame", "probability"]

_RULES: Mapping[str, tuple[str, ...]] = {
    "resize": get_args(Resize),
    "intensity": get_args(Intensity),
    "interpolation": get_args(Interpolation),
    "prompt_rule": get_args(PromptRule),
    "mask_rule": get_args(MaskRule),
}


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How one encoder wants its input; stored with every checkpoint.

    Args:
        size: model size: side of the square that the encoder sees [px].
        resize: `stretch` fits both sides; `longest` keeps the aspect and pads right and bottom.
        intensity: `uint8` divides 0..255 by 255, `minmax` scales each image to 0..1, `tissue` stretches the soft
            tissue of a CT picture before it is resized (`data.tissue`).
        mean: subtracted after that, per RGB channel.
        std: divided by after that, per RGB channel.
        pad_value: value of padded pixels, after normalisation.
        stride: image pixels a step of the embedding grid.
        interpolation: how pixels are resized. `auto` averages areas to shrink and is bilinear to enlarge, `area` is
            OpenCV's INTER_AREA both ways, `pillow` Pillow's bilinear filter, `spline` scikit-image's cubic spline
            after its smoothing, cut to whole grey values.
        prompt_size: side of the square that points and boxes are given in [px]; None where it is `size`.
        prompt_rule: `exact` scales each side like the picture; `truncated` scales both sides by the longest and
            cuts to whole pixels.
        mask_rule: how low-resolution logits become a mask. `direct` enlarges logits straight to the source, `frame`
            to the model's frame first, `probability` enlarges probabilities.

    Raises:
        SpecError: a size that the stride does not divide, or an unknown rule.
    """

    size: int
    resize: Resize = "stretch"
    intensity: Intensity = "uint8"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    pad_value: float = 0.0
    stride: int = 16
    interpolation: Interpolation = "auto"
    prompt_size: int | None = None
    prompt_rule: PromptRule = "exact"
    mask_rule: MaskRule = "direct"

    def __post_init__(self) -> None:
        """Refuse what no encoder could use."""
        if self.size < 1 or self.stride < 1 or self.size % self.stride:
            raise SpecError(
                f"ImageSpec: size is {self.size}, expected a positive multiple of stride {self.stride}."
            )
        for name, rules in _RULES.items():
            if getattr(self, name) not in rules:
                raise SpecError(
                    f"ImageSpec: {name} is '{getattr(self, name)}', expected one of {', '.join(rules)}."
                )
        if self.prompt_size is not None and self.prompt_size < 1:
            raise SpecError(
                f"ImageSpec: prompt_size is {self.prompt_size}, expected a positive number or None."
            )
        if min(self.std) <= 0:
            raise SpecError(f"ImageSpec: std is {self.std}, expected three positive numbers.")

    @property
    def grid(self) -> int:
        """Side of the embedding, in cells."""
        return self.size // self.stride

    def place(self, source: Sequence[int]) -> Placement:
        """Where an image of `source` (H, W) pixels lies in the model's frame."""
        height, width = int(source[0]), int(source[1])
        if height < 1 or width < 1:
            raise SpecError(
                f"ImageSpec.place: source size is {height}x{width}, expected at least 1x1 pixels."
            )
        return Placement(
            source=(height, width),
            content=self._content(height, width, self.size),
            frame=(self.size, self.size),
            prompt_scale=self._prompt_scale(height, width),
            whole_prompts=self.prompt_rule == "truncated",
        )

    def _content(self, height: int, width: int, size: int) -> tuple[int, int]:
        """(H, W) of a resized source in a square of `size` [px]."""
        if self.resize == "stretch":
            return size, size
        scale = size / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def _prompt_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """(x, y) factors from source to prompt frame, or None where they are those of the picture."""
        size = self.prompt_size or self.size
        if self.prompt_rule == "truncated":
            return size / max(height, width), size / max(height, width)
        if size == self.size:
            return None
        rows, columns = self._content(height, width, size)
        return columns / width, rows / height

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImageSpec:
        """From a dictionary as `to_json` makes it; unknown keys are an error.

        Raises:
            SpecError: keys that no spec has.
        """
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise SpecError(
                f"ImageSpec: unknown keys {sorted(unknown)}. The file was made by a newer version."
            )
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def spec_of(specs: Mapping[str, ImageSpec], modality: str | None = None) -> ImageSpec:
    """The spec of a modality, else that of any.

    Raises:
        SpecError: there is neither.
    """
    for name in (modality, ANY_MODALITY):
        if name is not None and name in specs:
            return specs[name]
    raise SpecError(
        f"ImageSpec: none for modality '{modality or 'any'}', expected one of {', '.join(specs)}. Name one of them."
    )


@dataclass(frozen=True, slots=True)
class Placement:
    """How one image lies in the model's square; carries coordinates both ways.

    Args:
        source: (H, W) as read [px].
        content: (H, W) after resize, before padding [px].
        frame: (H, W) of the tensor that the encoder sees [px].
        prompt_scale: (x, y) factors from source pixels to the prompt frame; None where it is the model's frame.
        whole_prompts: prompts are cut to whole pixels of their frame.
    """

    source: tuple[int, int]
    content: tuple[int, int]
    frame: tuple[int, int]
    prompt_scale: tuple[float, float] | None = None
    whole_prompts: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) factors from source pixels to model pixels, or to those of the prompt frame if it is another."""
        return self.prompt_scale or (self.content[1] / self.source[1], self.content[0] / self.source[0])

    def to_model(self, points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        """(x, y) points from source to model pixels, as prompts are given to a network."""
        x, y = self.scale
        placed = [(p[0] * x, p[1] * y) for p in points]
        return [(float(int(px)), float(int(py))) for px, py in placed] if self.whole_prompts else placed

    def to_source(self, points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        """(x, y) points from model to source pixels."""
        x, y = self.scale
        return [(p[0] / x, p[1] / y) for p in points]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a user says about one object: points, one box, an earlier mask; all may be empty.

    Args:
        points: (x, y) in source pixels.
        labels: 1 for "inside", 0 for "outside", one a point.
        box: (x0, y0, x1, y1) in source pixels, or None.

    Raises:
        UsageError: labels that do not match the points, or a box with x1 <= x0 or y1 <= y0.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the image."""
        if len(self.points) != len(self.labels):
            raise UsageError(
                f"prompts: {len(self.points)} points but {len(self.labels)} labels, expected one a point."
            )
        if any(label not in (0, 1) for label in self.labels):
            raise UsageError(
                f"prompts: point labels are {list(self.labels)}, expected 1 (inside) or 0 (outside)."
            )
        if self.box is not None and (self.box[2] <= self.box[0] or self.box[3] <= self.box[1]):
            raise UsageError(
                f"prompts: box is {list(self.box)}, expected X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1."
            )

    def __bool__(self) -> bool:
        """Whether anything is prompted at all."""
        return bool(self.points) or self.box is not None

    def check_inside(self, source: Sequence[int]) -> None:
        """Refuse prompts that lie outside an image of (H, W) pixels.

        Raises:
            UsageError: naming the valid range.
        """
        height, width = source[0], source[1]
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(
                    f"point {x:g},{y:g} is outside the image, expected 0 <= X < {width}, 0 <= Y < {height}."
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise UsageError(
                    f"box {x0:g},{y0:g},{x1:g},{y1:g} is outside the image, "
                    f"expected 0 <= X0 < X1 <= {width}, 0 <= Y0 < Y1 <= {height}."
                )
