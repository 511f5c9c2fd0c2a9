# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The model card: what a model is, what it learnt from, how well it does and where it fails; made from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_effsam.reports.card_words import words_of
from monai_effsam.reports.table import score_table, trivial_note
from monai_effsam.reports.table_form import as_fraction, markdown_table
from monai_effsam.specs import PROMPTABLE

__all__ = ["CardSources", "model_card"]


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
    card, words = sources.card, words_of(sources.card)
    head = (
        f"Version {sources.version}, {sources.date}. Made by `effsam models card`; not edited.\n"
        f"sha256 of the weights: `{card.get('sha256')}`."
    )
    sections = {
        "What it is for": words.purpose,
        "Input and output": _contract(sources),
        "Data": _data(sources),
        "Splits": _splits(card),
        "Initialisation": _initialisation(sources),
        "Recipe": _recipe(card),
        "Size and cost": _cost(sources.cost, words.priced),
        "Numbers": _numbers(sources),
        words.estimates: _calibration(card, sources.summary),
        "Limitations": _limits(sources),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Model card: {sources.name}\n\n{head}\n\n{body}\n"


def _contract(sources: CardSources) -> str:
    specs, words = sources.card["specs"], words_of(sources.card)
    spec = next(iter(specs.values()))
    mean, std = (", ".join(f"{v:.4f}" for v in spec[key]) for key in ("mean", "std"))
    given = (
        "In: one 8-bit picture, RGB (grey repeated), and the name of its modality; volumes a slice at a time. It is "
        f"resized to the model size of its modality and normalised per channel by mean ({mean}) and standard "
        f"deviation ({std}) of the 0..1 range. {words.prompt}"
    )
    return "\n\n".join([given, words.answer, _inputs(sources.card)])


def _inputs(card: Mapping[str, Any]) -> str:
    """The table of modalities: how each goes in and, of a self-prompting model, what comes out."""
    fits = {
        name: f"{spec['size']} x {spec['size']}, {spec['resize']}" for name, spec in card["specs"].items()
    }
    if card.get("kind") == PROMPTABLE:
        named = [[name, fit] for name, fit in fits.items() if name]
        return markdown_table(("modality", "model size [px]"), [*named, ["any other", fits[""]]], "lr")
    targets: dict[str, list[str]] = {name: [] for name in fits}
    for target in card["targets"]:
        targets[target["modality"]].append(f"{target['name']} {target['value']}")
    rows = [[name, fit, ", ".join(targets[name])] for name, fit in fits.items()]
    return markdown_table(("modality", "model size [px]", "targets and mask values"), rows, "lrl")


def _data(sources: CardSources) -> str:
    sets = sources.terms.get("sets", {})
    counts = sources.card.get("data") or {}
    if not counts:
        return "Not recorded."
    evaluated = (sources.summary or {}).get("sets", {})
    rows, notes = [], []
    held = "watched" if any("watched" in numbers for numbers in counts.values()) else "calibrated"
    for name, numbers in counts.items():
        facts = sets.get(name, {})
        used = [str(numbers.get(key, "–")) for key in ("trained", held)]
        val = str(evaluated[name]["files"]) if name in evaluated else "–"
        rows.append([name, *used, val, facts.get("terms", "not stated")])
        if facts:
            notes.append(f"- **{name}**: {facts['title']}. Labels: {facts['labels']}")
    titles = ("set", "trained on", f"{held} on" if held == "calibrated" else held, "validated on", "terms")
    table = markdown_table(titles, rows, "lrrrl")
    note = "Counts are files: pictures, single slices or volumes. The weights inherit the strictest of these terms: "
    note += "**research use only.** The pictures themselves are not part of this model's release."
    return "\n\n".join([table, note, *(["\n".join(notes)] if notes else [])])


def _splits(card: Mapping[str, Any]) -> str:
    share = (card.get("recipe") or {}).get("held_out")
    held = (
        f"Of the training groups {share:.0%} (chosen by a hash of their name)"
        if share
        else "Some training groups"
    )
    return (
        "By the `split` of each set's `splits.csv`; a patient or sequence (`case`) is on one side only, where the set "
        "names them. `val` was never trained or calibrated on." + words_of(card).held_out.format(share=held)
    )


def _initialisation(sources: CardSources) -> str:
    network = sources.card.get("network") or {}
    encoder = network.get("encoder") or network.get("image_encoder") or {}
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


def _cost(cost: Mapping[str, Any], given: str) -> str:
    part = (
        f", {cost['encoder_parameters_m']} million of them in the encoder"
        if "encoder_parameters_m" in cost
        else ""
    )
    rows = [[name, str(one["size"]), f"{one['gmacs']:.2f}"] for name, one in cost["modalities"].items()]
    return (
        f"{cost['file_mb']} MB on disk, {cost['parameters_m']} million parameters{part}. Multiply-accumulates of one "
        f"picture, encoder and decoder, {given}:\n\n"
        + markdown_table(("modality", "model size [px]", "GMACs"), rows)
    )


def _numbers(sources: CardSources) -> str:
    summary, words = sources.summary, words_of(sources.card)
    if summary is None:
        return "Not evaluated."
    made, time = summary["made"], summary["time"]["median_ms"]
    rounds = summary.get("rounds") or ()
    measured = words.measured.format(rounds=f" ({rounds[-1]['prompt']})" if rounds else "")
    costs = [] if time is None else [f"median time a picture, {words.timed}: {time:.0f} ms"]
    costs += [] if summary["peak_mb"] is None else [f"peak memory: {summary['peak_mb']} MB"]
    note = trivial_note(summary)
    return (
        f"`{made['command']}` on {made['date']}, split `{made['split']}`, {measured}; Dice a file, mean with a "
        f"95 % bootstrap interval over patients.\n\n{score_table(summary['rows'])}"
        + (f"\n\n{note}" if note else "")
        + f"\n\nOn {made['threads']} threads of {made['cores']} cores ({made['machine']}, {made['device']}): "
        f"{'; '.join(costs)}."
    )


def _calibration(card: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    parts = [words_of(card).calibration]
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
    masks = {n: v for n, v in (summary or {}).get("calibration", {}).items() if v.get("masks")}
    if masks and not told and card.get("kind") == PROMPTABLE:
        rows = [
            [name, str(v["masks"]), *(as_fraction(v.get(key)) for key in ("quality_error", "quality_bias"))]
            for name, v in masks.items()
        ]
        parts.append(
            "On validation pictures, against the true IoU (mean distance, mean of estimate minus truth):"
        )
        parts.append(markdown_table(("set", "masks", "off by", "bias"), rows))
    return "\n\n".join(parts)


def _limits(sources: CardSources) -> str:
    used = sources.card.get("data") or {}
    sets = sources.terms.get("sets", {})
    own = [f"- {name}: {limit}" for name in used for limit in sets.get(name, {}).get("limits", ())]
    return "\n".join([words_of(sources.card).limits, *own])
