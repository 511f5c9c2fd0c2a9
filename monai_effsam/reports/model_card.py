# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The model card: what a model is, what it learnt from, how well it does and where it fails; made from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_effsam.reports.table import score_table, trivial_note
from monai_effsam.reports.table_form import markdown_table

__all__ = ["CardSources", "model_card"]

_PURPOSE = """\
For research and development: to outline structures in medical pictures before anybody clicks, as a start for
annotation, as a baseline, as initialisation for training on other data.

**Not a medical device.** Not for diagnosis, treatment, triage or measurement of patients. Nobody has tested it in a
clinic; its mistakes are not rare and can look convincing."""

_GENERAL_LIMITS = """\
- It knows the modalities and targets of the table and nothing else: a picture of another kind, or a wrong `--modality`,
  gets an answer all the same.
- Volumes are outlined slice by slice; neighbouring slices may disagree.
- The sets are small and most come from one or a few hospitals and devices; another device, protocol or population will
  do worse than the numbers here.
- The numbers are of validation splits that were also looked at while the recipe was chosen; there is no untouched test
  set behind them.
- Sex, age, ethnicity and skin type of the people in the pictures are mostly not recorded; nothing is known about how
  well the model does for each group."""


@dataclass(frozen=True)
class CardSources:
    """Everything that a model card is made of.

    Args:
        name: of the model.
        version: of the package that it ships with.
        date: of the card, ISO.
        card: content of `model.json`.
        cost: of `evaluation.cost.model_cost`.
        summary: content of an evaluation's `summary.json`, or None if it was not evaluated.
        terms: content of `data_terms.json`: `sets` (title, labels, terms, limits ...) and `weights`; may be empty.
    """

    name: str
    version: str
    date: str
    card: Mapping[str, Any]
    cost: Mapping[str, Any]
    summary: Mapping[str, Any] | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)


def model_card(sources: CardSources) -> str:
    """The card as Markdown; every figure comes from the sources."""
    card = sources.card
    head = (
        f"Version {sources.version}, {sources.date}. Made by `effsam models card`; not edited.\n"
        f"sha256 of the weights: `{card.get('sha256')}`."
    )
    sections = {
        "What it is for": _PURPOSE,
        "Input and output": _contract(sources),
        "Data": _data(sources),
        "Splits": _splits(card),
        "Initialisation": _initialisation(sources),
        "Recipe": _recipe(card),
        "Size and cost": _cost(sources.cost),
        "Numbers": _numbers(sources.summary),
        "Presence and quality": _calibration(card, sources.summary),
        "Limitations": _limits(sources),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Model card: {sources.name}\n\n{head}\n\n{body}\n"


def _contract(sources: CardSources) -> str:
    specs = sources.card["specs"]
    targets: dict[str, list[str]] = {name: [] for name in specs}
    for target in sources.card["targets"]:
        targets[target["modality"]].append(f"{target['name']} {target['value']}")
    rows = [
        [name, f"{spec['size']} x {spec['size']}, {spec['resize']}", ", ".join(targets[name])]
        for name, spec in specs.items()
    ]
    spec = next(iter(specs.values()))
    mean, std = (", ".join(f"{v:.4f}" for v in spec[key]) for key in ("mean", "std"))
    given = (
        "In: one 8-bit picture, RGB (grey repeated), and the name of its modality; volumes a slice at a time. It is "
        f"resized to the model size of its modality and normalised per channel by mean ({mean}) and standard "
        f"deviation ({std}) of the 0..1 range. Optional: points and a box in pixels of the picture."
    )
    answer = (
        "Out: for each target of the modality mask logits, presence (probability that it is there, 0..1) and "
        "quality (estimated IoU, 0..1). `effsam segment` writes one mask in the geometry of the file, with these "
        "values:"
    )
    table = markdown_table(("modality", "model size [px]", "targets and mask values"), rows, "lrl")
    return "\n\n".join([given, answer, table])


def _data(sources: CardSources) -> str:
    sets = sources.terms.get("sets", {})
    counts = sources.card.get("data") or {}
    if not counts:
        return "Not recorded."
    evaluated = (sources.summary or {}).get("sets", {})
    rows, notes = [], []
    for name, numbers in counts.items():
        facts = sets.get(name, {})
        used = [str(numbers.get(key, "–")) for key in ("trained", "calibrated")]
        val = str(evaluated[name]["files"]) if name in evaluated else "–"
        rows.append([name, *used, val, facts.get("terms", "not stated")])
        if facts:
            notes.append(f"- **{name}**: {facts['title']}. Labels: {facts['labels']}")
    titles = ("set", "trained on", "calibrated on", "validated on", "terms")
    table = markdown_table(titles, rows, "lrrrl")
    note = "Counts are files: pictures, single slices or volumes. The weights inherit the strictest of these terms: "
    note += "**research use only.** The pictures themselves are not part of this model's release."
    return "\n\n".join([table, note, *(["\n".join(notes)] if notes else [])])


def _splits(card: Mapping[str, Any]) -> str:
    share = (card.get("recipe") or {}).get("held_out")
    held = (
        f" Of the training groups {share:.0%} (chosen by a hash of their name)"
        if share
        else " Some training groups"
    )
    return (
        "By the `split` of each set's `splits.csv`; a patient or sequence (`case`) is on one side only, where the set "
        f"names them. `val` was never trained or calibrated on.{held} of sets of at least 100 files were held out to "
        "calibrate presence."
    )


def _initialisation(sources: CardSources) -> str:
    encoder = (sources.card.get("network") or {}).get("encoder") or {}
    facts = sources.terms.get("weights", {}).get(encoder.get("model", ""))
    name = encoder.get("model", encoder.get("name", "unknown"))
    if facts is None:
        return f"Encoder `{name}`; where its first weights come from is not recorded."
    return f"Encoder `{name}`: {facts['origin']}\n\nTerms: {facts['terms']}\n\nWhat it may leak: {facts['leaks']}"


def _recipe(card: Mapping[str, Any]) -> str:
    recipe = card.get("recipe") or {}
    if not recipe:
        return "Not recorded."
    rows = [[key, _setting(value)] for key, value in recipe.items() if value not in ({}, None)]
    table = markdown_table(("setting", "value"), rows, "ll")
    history = "".join(f"\n- {note}" for note in card.get("history", ()))
    return f"{table}\n\nWhat the settings do not tell:\n{history}" if history else table


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cost(cost: Mapping[str, Any]) -> str:
    part = (
        f", {cost['encoder_parameters_m']} million of them in the encoder"
        if "encoder_parameters_m" in cost
        else ""
    )
    rows = [[name, str(one["size"]), f"{one['gmacs']:.2f}"] for name, one in cost["modalities"].items()]
    return (
        f"{cost['file_mb']} MB on disk, {cost['parameters_m']} million parameters{part}. Multiply-accumulates of one "
        "picture, encoder and decoder, no prompt:\n\n"
        + markdown_table(("modality", "model size [px]", "GMACs"), rows)
    )


def _numbers(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "Not evaluated."
    made, time = summary["made"], summary["time"]["median_ms"]
    costs = [] if time is None else [f"median time a picture, file to overlay: {time:.0f} ms"]
    costs += [] if summary["peak_mb"] is None else [f"peak memory: {summary['peak_mb']} MB"]
    note = trivial_note(summary)
    return (
        f"`{made['command']}` on {made['date']}, split `{made['split']}`, no prompt, the modality told, one model for "
        f"all rows; Dice a file, mean with a 95 % bootstrap interval over patients.\n\n{score_table(summary['rows'])}"
        + (f"\n\n{note}" if note else "")
        + f"\n\nOn {made['threads']} threads of {made['cores']} cores ({made['machine']}, {made['device']}): "
        f"{'; '.join(costs)}."
    )


def _calibration(card: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    method = (
        "Presence is calibrated by Platt scaling on held-out training cases, for the targets that have at least five "
        "cases with and five without; for the others it is the network's own. Where a set holds too few empty "
        "pictures, windows beside the target stand in for them. With about as many cases without as with, presence "
        "is too low where nearly every picture holds the target. Below 0.5 the answer is “nothing here”. Quality is "
        "the network's own estimate and not calibrated."
    )
    parts = [method]
    fitted = card.get("calibration") or {}
    if fitted:
        titles = ("target", "scale", "shift", "with", "without", "of these windows")
        rows = [
            [
                name,
                *(f"{v[key]:.2f}" for key in ("scale", "shift")),
                *(f"{v.get(key, 0):.0f}" for key in ("present", "absent", "windows")),
            ]
            for name, v in fitted.items()
        ]
        parts.append(markdown_table(titles, rows))
    told = {
        n: v for n, v in (summary or {}).get("calibration", {}).items() if v.get("presence_error") is not None
    }
    if told:
        rows = [
            [
                name,
                str(v["told"]),
                str(v["present"]),
                f"{v['presence_right']:.0%}",
                f"{v['presence_error']:.3f}",
            ]
            for name, v in told.items()
        ]
        parts.append("On validation pictures (expected calibration error in ten bins):")
        parts.append(markdown_table(("set", "answers", "of these present", "right", "error"), rows))
    return "\n\n".join(parts)


def _limits(sources: CardSources) -> str:
    used = sources.card.get("data") or {}
    sets = sources.terms.get("sets", {})
    own = [f"- {name}: {limit}" for name in used for limit in sets.get(name, {}).get("limits", ())]
    return "\n".join([_GENERAL_LIMITS, *own])
