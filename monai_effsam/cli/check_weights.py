# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What `effsam models check` does: weights loaded strictly, one picture outlined, all that is known printed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_effsam.cli.common import print_json
from monai_effsam.errors import WeightsError
from monai_effsam.specs import ImageSpec, Prompts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from monai_effsam.checkpoints import LoadedCheckpoint

__all__ = ["check_weights", "report"]

_DRAWN = (240, 320)  # (H, W) of the picture that is drawn where none is given [px]
_ALWAYS = (
    "size",
    "resize",
    "intensity",
    "mean",
    "std",
)  # fields of a spec that are printed though they be default
_MARGIN = 4  # between the drawn ellipse and its box [px]


def check_weights(
    file: Path, *, family: str | None = None, sha256: str | None = None, image: Path | None = None
) -> dict[str, Any]:
    """Load a file of weights, outline one picture with it, and say what it is, ready for JSON.

    Args:
        file: of weights, or the folder of a model of this package.
        family: see `load_checkpoint`.
        sha256: checksum that it must have.
        image: picture to outline within its middle half; None for a drawn ellipse.

    Raises:
        WeightsError: anything is wrong with the file, or its network answers no numbers.
        DataError: the picture cannot be read.
    """
    from monai_effsam.checkpoints import load_checkpoint

    drawn = None if image else _drawing()
    rgb, box = (drawn[0], drawn[2]) if drawn else _pictured(image or Path())
    loaded = load_checkpoint(file, family=family, sha256=sha256)
    start = time.perf_counter()
    mask, quality = _outlined(loaded, rgb, box)
    seconds = time.perf_counter() - start
    x0, y0, x1, y1 = (int(side) for side in box)
    forward = {
        "picture": str(image) if image else "a drawn ellipse",
        "size": list(rgb.shape[:2]),
        "box": list(box),
        "mask_px": int(mask.sum()),
        "in_box": float(mask[y0:y1, x0:x1].mean()),
        "quality": quality,
        "seconds": round(seconds, 2),
    }
    if drawn:
        forward["dice"] = float(2 * (mask & drawn[1]).sum() / max(1, mask.sum() + drawn[1].sum()))
    return {
        "file": str(loaded.path),
        "family": loaded.family,
        "or": list(loaded.doubts),
        "layout": loaded.layout,
        "parameters": sum(p.numel() for p in loaded.network.parameters()),
        "sha256": loaded.sha256,
        "licence": loaded.licence,
        "specs": {name or "any": spec.to_json() for name, spec in loaded.specs.items()},
        "forward": forward,
    }


def report(found: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print what `check_weights` found, for machines or for people."""
    if as_json:
        print_json(found)
    if as_json or quiet:
        return
    forward = found["forward"]
    rows = {
        "file": found["file"],
        "family": _family(found),
        "layout": f"{found['layout']}, {found['parameters']:,} parameters",
        "sha256": found["sha256"],
        "licence": found["licence"],
    }
    rows |= {f"input {name}": _spec(values) for name, values in found["specs"].items()}
    height, width = forward["size"]
    rows["picture"] = (
        f"{forward['picture']}, {width} x {height}, box {','.join(f'{x:g}' for x in forward['box'])}"
    )
    dice = f", Dice with the ellipse {forward['dice']:.3f}" if "dice" in forward else ""
    rows["outline"] = (
        f"{forward['mask_px']} px, {forward['in_box']:.0%} of the box, quality {forward['quality']:.3f}{dice}, "
        f"{forward['seconds']} s"
    )
    column = max(map(len, rows)) + 2
    for name, text in rows.items():
        print(f"{name:<{column}}{text}")


def _family(found: dict[str, Any]) -> str:
    if not found["or"]:
        return str(found["family"])
    others = " or ".join(found["or"])
    return f"{found['family']} (or {others}: same keys, another input; --family says which)"


def _spec(values: dict[str, Any]) -> str:
    """A spec in a line: size, resizing and normalisation, and what else differs from the defaults."""
    plain = {f.name: f.default for f in dataclasses.fields(ImageSpec)}
    told = {k: v for k, v in values.items() if k in _ALWAYS or v != plain[k]}
    return ", ".join(f"{k} {_short(v)}" for k, v in told.items())


def _short(value: Any) -> str:
    return " ".join(f"{x:.4g}" for x in value) if isinstance(value, list | tuple) else str(value)


def _drawing() -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[float, float, float, float]]:
    """A bright ellipse on a dark ground with a little noise, the ellipse, and a box around it."""
    import numpy as np

    height, width = _DRAWN
    centre, radii = (width * 0.45, height * 0.55), (width * 0.2, height * 0.25)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1
    grey = np.where(inside, 180, 60) + np.random.default_rng(0).normal(0, 6, _DRAWN)
    rgb = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    low = [int(c - r) - _MARGIN for c, r in zip(centre, radii, strict=True)]
    high = [int(c + r) + 1 + _MARGIN for c, r in zip(centre, radii, strict=True)]
    return rgb, inside, (low[0], low[1], high[0], high[1])


def _pictured(path: Path) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """The first slice of a file, and a box around its middle half."""
    from monai_effsam.data.io import read_image
    from monai_effsam.inference.prompted import middle_box

    image = read_image(path)
    box = middle_box(image.size).box
    assert box is not None
    return image.rgb(0), box


def _outlined(
    loaded: LoadedCheckpoint, rgb: NDArray[np.uint8], box: tuple[float, float, float, float]
) -> tuple[NDArray[np.bool_], float]:
    """The mask (H, W) of a box, and its estimated quality."""
    import numpy as np

    from monai_effsam.inference import Segmenter
    from monai_effsam.inference.runtimes import PromptArrays
    from monai_effsam.inference.runtimes.torch_runtime import TorchRuntime

    segmenter, prompts = Segmenter(TorchRuntime(loaded.model)), Prompts(box=box)
    target = None if segmenter.promptable else loaded.model.targets[0]
    encoding = segmenter.encode_slices([rgb], target.modality if target else None)
    raw = segmenter.runtime.decode(encoding.encoded, 0, PromptArrays.of(prompts, encoding.placement))
    if not all(np.isfinite(part).all() for part in raw):
        raise WeightsError(
            f"{loaded.path}: network answers NaN or infinity on the picture, expected numbers. "
            "Restore it from where it came from."
        )
    found = segmenter.decode(encoding, targets=[target.name] if target else None, prompts=prompts)
    return found.mask[0] > 0, float(found.quality[0, 0])
