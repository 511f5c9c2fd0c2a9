# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a model card says in words, for models that prompt themselves and for those that are prompted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_effsam.specs import PROMPTABLE

__all__ = ["CardWords", "words_of"]

_NO_DEVICE = """\
**Not a medical device.** Not for diagnosis, treatment, triage or measurement of patients. Nobody has tested it in a
clinic; its mistakes are not rare and can look convincing."""

_LIMITS = """\
- The sets are small and most come from one or a few hospitals and devices; another device, protocol or population will
  do worse than the numbers here.
- The numbers are of validation splits that were also looked at while the recipe was chosen; there is no untouched test
  set behind them.
- Sex, age, ethnicity and skin type of the people in the pictures are mostly not recorded; nothing is known about how
  well the model does for each group."""


@dataclass(frozen=True, slots=True)
class CardWords:
    """The parts of a card that depend on the kind of model.

    Args:
        purpose: what it is for.
        prompt: end of the sentence on the input.
        answer: what comes out.
        held_out: end of the section on splits; `{share}` for how many groups.
        priced: what the arithmetic is counted with.
        measured: how the numbers were made.
        timed: what a median time is of.
        estimates: title of the section on presence and quality.
        calibration: how both come about.
        limits: that hold for every set.
    """

    purpose: str
    prompt: str
    answer: str
    held_out: str
    priced: str
    measured: str
    timed: str
    estimates: str
    calibration: str
    limits: str


_SELF_PROMPTING = CardWords(
    purpose=f"""\
For research and development: to outline structures in medical pictures before anybody clicks, as a start for
annotation, as a baseline, as initialisation for training on other data.

{_NO_DEVICE}""",
    prompt="Optional: points and a box in pixels of the picture.",
    answer=(
        "Out: for each target of the modality mask logits, presence (probability that it is there, 0..1) and "
        "quality (estimated IoU, 0..1). `effsam segment` writes one mask in the geometry of the file, with these "
        "values:"
    ),
    held_out=" {share} of sets of at least 100 files were held out to calibrate presence.",
    priced="no prompt",
    measured="no prompt, the modality told, one model for all rows",
    timed="file to overlay",
    estimates="Presence and quality",
    calibration=(
        "Presence is calibrated by Platt scaling on held-out training cases, for the targets that have at least five "
        "cases with and five without; for the others it is the network's own. Where a set holds too few empty "
        "pictures, windows beside the target stand in for them. With about as many cases without as with, presence "
        "is too low where nearly every picture holds the target. Below 0.5 the answer is “nothing here”. Quality is "
        "the network's own estimate and not calibrated."
    ),
    limits=f"""\
- It knows the modalities and targets of the table and nothing else: a picture of another kind, or a wrong `--modality`,
  gets an answer all the same.
- Volumes are outlined slice by slice; neighbouring slices may disagree.
{_LIMITS}""",
)

_PROMPTABLE = CardWords(
    purpose=f"""\
For research and development: to outline what a box or clicks show in a medical picture, as a start for annotation, as a
baseline, as initialisation for training on other data.

{_NO_DEVICE}""",
    prompt="A box, points or both, in pixels of the picture, say what to outline; without them there is no answer.",
    answer=(
        "Out: mask logits and quality (estimated IoU, 0..1) of the one object that is prompted. `effsam segment` "
        "writes a mask in the geometry of the file, with the value of the target that is named (`effsam targets`), "
        "else 1. The modality, where it is told, chooses the input:"
    ),
    held_out="",
    priced="one box",
    measured="a simulated user who prompts{rounds}, the modality told, one model for all rows",
    timed="reading, encoder and decoder",
    estimates="Quality",
    calibration=(
        "Quality is the network's own estimate and not calibrated. It does not tell whether a structure is there at "
        "all: something is outlined wherever it is prompted."
    ),
    limits=f"""\
- It outlines what it is prompted for, rightly or not; what was never prompted in training may be outlined badly.
- It takes single pictures; of a volume each slice must be prompted.
{_LIMITS}""",
)


def words_of(card: Mapping[str, Any]) -> CardWords:
    """The words for a model, by its `model.json`."""
    return _PROMPTABLE if card.get("kind") == PROMPTABLE else _SELF_PROMPTING
