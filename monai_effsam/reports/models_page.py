# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Several models on the same prompts, as Markdown and as a plot; every figure comes from the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_effsam.reports.box_chart import Box, box_chart
from monai_effsam.reports.models_trade import trade_section
from monai_effsam.reports.table_form import Section, Table, as_fraction, as_whole, markdown_table

__all__ = ["models_page", "models_plot", "models_sections"]

_METHOD = """\
Every model gets the very same prompts, one target at a time, wherever the label of a picture holds it; what is drawn at
random depends on the seed, the jitter and the name of the object alone. A box frames the target to the outer edges of
its outermost pixels, then each side strays by up to so many pixels of a picture whose longest side is 1024. A point is
one click, at the pixel of the target that is farthest from its outline. There are no further clicks. Of volumes every
slice that holds the target is prompted. A score is the Dice of answer and label on the stored grid of the file.
Trivial, after a box: the ellipse that the very same box frames; after a point: one constant mask, the mean training
mask of set and target cut at its best level. Neither looks at the picture. Differences are those of paired scores, the
model named first minus the second: their mean, its 95 % bootstrap interval that draws pictures, and a two-sided
Wilcoxon signed-rank test over the pictures' mean differences. Better and worse: pictures in which the first is higher
or lower. Effect: matched-pairs rank-biserial correlation, -1 to 1. Holm: corrected for all pairs of one prompt; set by
set, for all pairs and sets of one prompt. As slices of one patient are alike, the last column counts a patient once,
not a picture.
"""

_PRECISION = """\
mAP is COCO's average precision of masks over a whole set, the mean over IoU .50:.05:.95, read at 101 recalls and
averaged over the targets of the set; AP50 and AP75 are those of one IoU. An object is a target of a file, all of its
pieces together, and gets one prompt, the very one of the heading; so there is one mask an object, and the order of the
masks is that of the model's own estimate of its quality. A model that cannot tell its good masks from its bad ones
has a lower mAP at equal masks; the mean IoU beside it does not know of that.
"""

_TIMES = (
    "Times: medians over a few pictures of all sets, a tight box each, the models in turns; the encoder with the "
    "preparation of the picture, the decoder with the way of the mask back to it. GMACs: multiply-accumulates of one "
    "picture, encoder and decoder, 10^9. Pictures a second: the encoder's network alone, in turns. n: scores, one a "
    "target of a picture."
)

_WHISKERS = (
    "Box: quartiles and median; whiskers: 10th and 90th percentile; dot: mean; "
    "diamond: mean of the trivial answer."
)


def models_page(summary: Mapping[str, Any], plot: str) -> str:
    """The whole page, as Markdown.

    Args:
        summary: what `evaluation.compare_models` gives.
        plot: file of `models_plot`, as seen from the page.
    """
    parts = ["# Promptable models on the same prompts", _origin(summary)]
    for section in models_sections(summary):
        parts += [f"## {section.heading}"] if section.heading else []
        parts += [markdown_table(table.titles, table.rows, table.align) for table in section.tables]
        parts += [section.note] if section.note else []
    title = _plot_title(summary)
    parts += [f"## Dice by set\n\n![{title}]({plot})\n\n{title}. {_WHISKERS}"]
    notes = summary["notes"].strip()
    parts += [notes if notes.startswith("#") else f"## Notes\n\n{notes}"] if notes else []
    method = _METHOD + (f"\n{_PRECISION}" if _has_precision(summary["prompts"][0]) else "")
    return "\n\n".join([*parts, f"## How it was measured\n\n{method}"])


def models_plot(summary: Mapping[str, Any]) -> str:
    """Dice by set and model at the middle one of the boxes, as an SVG file."""
    entry = _middle(summary)
    groups = {
        name: {model["name"]: _box(model["sets"][name]) for model in entry["models"] if name in model["sets"]}
        for name in summary["sets"]
    }
    trivial = {name: cell["mean"] for name, cell in entry["trivial"]["sets"].items()}
    return box_chart(groups, trivial, "Dice", _plot_title(summary))


def models_sections(summary: Mapping[str, Any]) -> list[Section]:
    """Models and sets, then the tables of each prompt."""
    sections = [Section("", (_models(summary["models"]), _sets(summary["sets"])), _TIMES)]
    sections += [trade_section(summary)] if len(summary["models"]) > 1 else []
    for entry in summary["prompts"]:
        tables = [_scores(entry, summary["sets"]), _medians(entry, summary["sets"])]
        tables += [_precision(entry, summary["sets"])] if _has_precision(entry) else []
        tables += (
            [_pairs(entry["pairs"]), _pairs_by_set(entry["pairs"], summary["sets"])] if entry["pairs"] else []
        )
        sections.append(Section(_heading(entry), tuple(tables), _note(entry)))
    return sections


def _origin(summary: Mapping[str, Any]) -> str:
    made = summary["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"Made by `{made['command']}` on {made['date']}; not edited. Split `{made['split']}`, seed {made['seed']}, "
        f"{made['threads']} threads on {made['cores']} cores ({made['machine']}). {versions}."
    )


def _models(models: Sequence[Mapping[str, Any]]) -> Table:
    sizes = list(models[0].get("images_s", {}))
    titles = (
        "model",
        "parameters [M]",
        "GMACs",
        "encoder [ms]",
        "decoder [ms]",
        *(f"encoder, {size} at once [pictures/s]" for size in sizes),
        "family",
        "runs in",
        "sha256 of the weights",
    )
    rows = tuple(
        (
            m["model"],
            _millions(m["parameters"]),
            "–" if m.get("gmacs") is None else f"{m['gmacs']:.2f}",
            as_whole(m["encode_ms"]),
            as_whole(m["decode_ms"]),
            *(f"{m['images_s'][size]:.1f}" for size in sizes),
            m["family"] or "–",
            f"{m['runtime']}, {m['device']}",
            f"`{m['sha256']}`",
        )
        for m in models
    )
    return Table(titles, rows, "lrrrr" + "r" * len(sizes) + "lll")


def _sets(sets: Mapping[str, Mapping[str, int]]) -> Table:
    keys = ("pictures", "patients", "targets", "scores")
    return Table(
        ("set", *keys), tuple((name, *(str(facts[key]) for key in keys)) for name, facts in sets.items())
    )


def _scores(entry: Mapping[str, Any], sets: Mapping[str, Mapping[str, int]]) -> Table:
    """Mean and spread by set, and what is gained over the trivial answer."""
    titles = (
        "Dice, mean ± sd",
        *(f"{name} (n {facts['scores']})" for name, facts in sets.items()),
        "mean of the sets",
        "gain",
    )
    rows = [
        (
            model["name"],
            *(_mean_sd(model["sets"].get(name)) for name in sets),
            f"**{as_fraction(model['mean_of_sets'])}**",
            _signed(model["gain"]),
        )
        for model in entry["models"]
    ]
    trivial = entry["trivial"]
    cells = (_mean_sd(trivial["sets"].get(name)) for name in sets)
    rows.append((_trivial_name(entry), *cells, as_fraction(trivial["mean_of_sets"]), "–"))
    return Table(titles, tuple(rows))


def _has_precision(entry: Mapping[str, Any]) -> bool:
    """Whether a summary tells it; those of former versions do not."""
    return all("precision" in model for model in entry["models"])


def _precision(entry: Mapping[str, Any], sets: Mapping[str, Any]) -> Table:
    """COCO's AP and the mean IoU, by set."""
    keys = ("map", "ap50", "ap75", "iou")
    rows = tuple(
        (
            model["name"],
            *(
                " / ".join(as_fraction(model["precision"].get(name, {}).get(key)) for key in keys)
                for name in sets
            ),
        )
        for model in entry["models"]
    )
    return Table(("mAP / AP50 / AP75 / mean IoU", *sets), rows)


def _medians(entry: Mapping[str, Any], sets: Mapping[str, Any]) -> Table:
    named = [
        *((m["name"], m["sets"]) for m in entry["models"]),
        (_trivial_name(entry), entry["trivial"]["sets"]),
    ]
    rows = tuple((name, *(as_fraction(own.get(s, {}).get("median")) for s in sets)) for name, own in named)
    return Table(("Dice, median", *sets), rows)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Table:
    titles = (
        "all sets",
        "pictures",
        "difference",
        "95 %",
        "better",
        "worse",
        "effect",
        "p",
        "p, Holm",
        "by patient, Holm",
    )
    rows = tuple(
        (
            _pair_name(pair),
            str((test := pair["pictures"])["groups"]),
            f"**{test['mean']:+.4f}**",
            f"{test['low']:+.4f} to {test['high']:+.4f}",
            str(test["better"]),
            str(test["worse"]),
            f"{test['effect']:+.2f}",
            f"{test['p_value']:.2g}",
            f"{test['p_holm']:.2g}",
            f"{pair['patients']['p_holm']:.2g}",
        )
        for pair in pairs
    )
    return Table(titles, rows)


def _pairs_by_set(pairs: Sequence[Mapping[str, Any]], sets: Mapping[str, Any]) -> Table:
    rows = tuple(
        (_pair_name(pair), *(_difference(pair["sets"].get(name)) for name in sets)) for pair in pairs
    )
    return Table(("difference (p, Holm)", *sets), rows)


def _note(entry: Mapping[str, Any]) -> str:
    told = "the ellipse" if entry["start"] == "box" else "the constant mask"
    return f"Gain: mean of the sets less that of {told}."


def _heading(entry: Mapping[str, Any]) -> str:
    if entry["start"] != "box":
        return "One point"
    return f"Box, jitter {entry['jitter']} px" if entry["jitter"] else "Tight box"


def _trivial_name(entry: Mapping[str, Any]) -> str:
    return "ellipse in the box" if entry["start"] == "box" else "constant mask"


def _pair_name(pair: Mapping[str, Any]) -> str:
    return f"{pair['first']} − {pair['second']}"


def _middle(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    boxes = sorted((e for e in summary["prompts"] if e["start"] == "box"), key=lambda e: e["jitter"])
    return boxes[len(boxes) // 2]


def _plot_title(summary: Mapping[str, Any]) -> str:
    heading = _heading(_middle(summary))
    return f"Dice by set and model, {heading[0].lower()}{heading[1:]}"


def _box(cell: Mapping[str, float]) -> Box:
    return Box(cell["tenth"], cell["lower"], cell["median"], cell["upper"], cell["ninetieth"], cell["mean"])


def _mean_sd(cell: Mapping[str, float] | None) -> str:
    return "–" if cell is None else f"{cell['mean']:.3f} ± {cell['sd']:.3f}"


def _difference(test: Mapping[str, float] | None) -> str:
    return "–" if test is None else f"{test['mean']:+.3f} ({test['p_holm']:.2g})"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.2f}"
