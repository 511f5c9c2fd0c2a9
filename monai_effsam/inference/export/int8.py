# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An exported promptable model in 8-bit arithmetic: NNCF's post-training quantisation of its OpenVINO graphs.

What it costs is measured on pictures that the ranges of the numbers were not learnt from: the Dice of masks with their
labels, or without labels with the masks of the very graphs in 32 bits. Where too much is lost, NNCF takes the layers
back that are to blame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.data.placement import apply_spec
from monai_effsam.data.slices import LabelledSlice, resized_label
from monai_effsam.data.views import object_boxes
from monai_effsam.errors import DataError
from monai_effsam.inference.prompted import middle_box
from monai_effsam.inference.runtimes.contract import PromptArrays
from monai_effsam.inference.runtimes.exported import prompt_tokens
from monai_effsam.inference.runtimes.quiet_import import import_nncf, import_openvino
from monai_effsam.specs import ImageSpec, Placement, Prompts, spec_of

__all__ = ["CalibrationPicture", "Int8Settings", "calibration_pictures", "mask_agreement", "quantise"]

LEAST = 4
"""Pictures without which there is nothing to learn and to judge from."""

_JUDGED = 4  # every how manieth picture judges
_RANKED = 8  # of those, so many tell which layers are to blame


class CalibrationPicture(NamedTuple):
    """A picture and a box, as the graphs want them.

    Attributes:
        image: (1, 3, S, S) float32.
        points: (1, 1, 2, 2) float32, the corners of the box in the prompt frame.
        labels: (1, 1, 2) int64.
        drawn: (S, S) bool, what is labelled in the box; None where nothing is.
    """

    image: NDArray[np.float32]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    drawn: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Int8Settings:
    """What to quantise, on what, and how much it may cost.

    Args:
        pictures: of `calibration_pictures`, of the training data alone; every fourth judges, the others calibrate.
        max_drop: what the mean Dice may lose, see above.
        decoder: the decoder too.

    Raises:
        DataError: too few pictures.
    """

    pictures: Sequence[CalibrationPicture]
    max_drop: float = 0.005
    decoder: bool = False

    def __post_init__(self) -> None:
        """Refuse what nothing can be learnt from."""
        if len(self.pictures) < LEAST:
            raise DataError(
                f"int8: {len(self.pictures)} pictures to calibrate on, expected at least {LEAST}. Give more."
            )


def calibration_pictures(
    slices: Iterable[LabelledSlice], specs: Mapping[str, ImageSpec]
) -> list[CalibrationPicture]:
    """Pictures as the graphs want them, each with the box of its first target, or of its middle where it has none.

    Args:
        slices: of the training data.
        specs: of the model.
    """
    made = []
    for one in slices:
        image, place = apply_spec(one.image, spec_of(specs, one.modality))
        boxes = object_boxes(one.label)
        prompts = Prompts(box=boxes[0]) if boxes else middle_box((one.image.shape[0], one.image.shape[1]))
        points, labels = prompt_tokens(PromptArrays.of(prompts, place), 1)
        drawn = _drawn(one.label, place) if boxes else None
        made.append(CalibrationPicture(image[None], points[:, None], labels[:, None], drawn))
    return made


def _drawn(label: NDArray[np.uint8], place: Placement) -> NDArray[np.bool_]:
    """The first target of a label, in the model's frame."""
    rows, columns = place.content
    small = resized_label((label == label[label > 0].min()).astype(np.uint8), (rows, columns))
    found = np.zeros(place.frame, bool)
    found[:rows, :columns] = small > 0
    return found


def quantise(graphs: Mapping[str, Sequence[Path]], settings: Int8Settings) -> dict[str, Any]:
    """Replace the OpenVINO graph of the encoder, if wanted that of the decoder too, by one in 8 bits.

    Args:
        graphs: role -> IR and its weights; the files are replaced.
        settings: see there.

    Returns:
        For the manifest: `roles`, how many pictures `calibrated` and how many `judged`, `max_drop`, what the mean Dice
        of these `lost`, the mean `dice` of their masks with those in 32 bits, and `tool`.

    Raises:
        MissingExtraError: nncf or openvino is not installed.
        DataError: masks in 32 bits are all empty, so nothing can be judged.
    """
    half = _Halves(graphs, settings)
    roles = ("encoder", "decoder") if settings.decoder else ("encoder",)
    for role in roles:
        half.quantise(role)
    for role in roles:
        half.write(role, graphs[role])
    return {
        "roles": list(roles),
        "calibrated": len(half.learnt),
        "judged": len(half.judged),
        "max_drop": settings.max_drop,
        "lost": round(half.score - fmean(half.scores(half.encode, half.decode)), 4),
        "dice": round(half.agreement(), 4),
        "tool": f"nncf {half.nncf.__version__}",
    }


class _Halves:
    """Both graphs of a model, compiled, and the masks that they gave in 32 bits."""

    def __init__(self, graphs: Mapping[str, Sequence[Path]], settings: Int8Settings) -> None:
        self.nncf, self.openvino = import_nncf(), import_openvino()
        self.core, self.max_drop = self.openvino.Core(), settings.max_drop
        self.judged = list(settings.pictures[::_JUDGED])
        self.learnt = [one for number, one in enumerate(settings.pictures) if number % _JUDGED]
        self.models = {role: self.core.read_model(files[0]) for role, files in graphs.items()}
        self.encode, self.decode = (self._compiled(role) for role in ("encoder", "decoder"))
        self.full = [_mask(self.encode, self.decode, one) for one in self.judged]
        if not any(mask.any() for mask in self.full):
            raise DataError(
                "int8: the model outlines nothing in any picture, expected masks. Give its own data."
            )
        self.wanted = [_on_grid(one.drawn, mask) for one, mask in zip(self.judged, self.full, strict=True)]
        self.score = fmean(map(mask_agreement, self.full, self.wanted))

    def scores(self, encode: Any, decode: Any, numbers: Iterable[int] | None = None) -> list[float]:
        """Dice of the masks of some judged pictures, or of all, with what they should be."""
        chosen = range(len(self.judged)) if numbers is None else numbers
        return [mask_agreement(_mask(encode, decode, self.judged[n]), self.wanted[n]) for n in chosen]

    def agreement(self) -> float:
        """Mean Dice of the masks as they are now with those in 32 bits."""
        pairs = zip(self.judged, self.full, strict=True)
        return fmean(mask_agreement(_mask(self.encode, self.decode, one), mask) for one, mask in pairs)

    def quantise(self, role: str) -> None:
        """One graph in 8 bits; what NNCF prints is kept back, its errors are not."""
        model = self.models[role]

        def judge(compiled: Any, numbers: Iterable[int]) -> tuple[float, list[float]]:
            halves = (compiled, self.decode) if role == "encoder" else (self.encode, compiled)
            each = self.scores(*halves, numbers)
            return fmean(each), each

        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            self.models[role] = self.nncf.quantize_with_accuracy_control(
                model,
                self.nncf.Dataset(
                    self.learnt, self._encoder_feed if role == "encoder" else self._decoder_feed
                ),
                self.nncf.Dataset(range(len(self.judged))),
                judge,
                max_drop=self.max_drop,
                subset_size=len(self.learnt),
                advanced_accuracy_restorer_parameters=self.nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(_RANKED, len(self.judged))
                ),
                model_type=self.nncf.ModelType.TRANSFORMER if _has_attention(model) else None,
            )
        setattr(self, "encode" if role == "encoder" else "decode", self._compiled(role))

    def write(self, role: str, files: Sequence[Path]) -> None:
        """A graph over the one in 32 bits, whose weights are mapped into memory until the new file is whole."""
        beside = files[0].with_name(f"int8_{files[0].name}")
        self.openvino.save_model(self.models[role], str(beside), compress_to_fp16=False)
        for new, old in zip((beside, beside.with_suffix(".bin")), files, strict=True):
            new.replace(old)

    def _compiled(self, role: str) -> Any:
        return self.core.compile_model(self.models[role], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def _encoder_feed(self, one: CalibrationPicture) -> dict[str, Any]:
        return {"image": one.image}

    def _decoder_feed(self, one: CalibrationPicture) -> dict[str, Any]:
        return {"embedding": _first(self.encode, {"image": one.image}), **_prompt(one)}


def _has_attention(model: Any) -> bool:
    return any(node.get_type_name() in ("Softmax", "ScaledDotProductAttention") for node in model.get_ops())


def _on_grid(drawn: NDArray[np.bool_] | None, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A label on the grid of a mask, or the mask itself."""
    if drawn is None:
        return mask
    shares = cv2.resize(drawn.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(shares > 0.5)


def _mask(encode: Any, decode: Any, one: CalibrationPicture) -> NDArray[np.bool_]:
    """The mask of the picture's box, (h, w)."""
    logits = _first(decode, {"embedding": _first(encode, {"image": one.image}), **_prompt(one)})
    return np.asarray(logits[0, 0, 0] > 0)


def _prompt(one: CalibrationPicture) -> dict[str, NDArray[Any]]:
    return {"points": one.points, "labels": one.labels}


def _first(compiled: Any, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The first output of a compiled graph, copied."""
    return np.array(compiled(dict(feed))[0])


def mask_agreement(mask: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 where both are empty."""
    total = int(mask.sum()) + int(expected.sum())
    return 2 * int((mask & expected).sum()) / total if total else 1.0
