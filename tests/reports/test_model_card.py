# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The model card holds what its sources hold, and says so where they hold nothing."""

from dataclasses import replace

import pytest

from monai_effsam.reports import CardSources, model_card
from monai_effsam.specs import ImageSpec
from monai_effsam.targets import targets_of


@pytest.fixture
def sources():
    card = {
        "sha256": "ab12",
        "network": {"encoder": {"name": "timm", "model": "tiny"}},
        "specs": {"endoscopy": ImageSpec(320, mean=(0.5, 0.4, 0.3)).to_json()},
        "targets": [target.to_json() for target in targets_of("endoscopy")],
        "recipe": {"rate": 8e-4, "epochs": 19, "held_out": 0.05, "sizes": {"endoscopy": 320}, "weights": {}},
        "calibration": {"endoscopy/polyp": {"scale": 1.25, "shift": -0.5, "present": 30, "absent": 12}},
        "data": {"polyps": {"trained": 800, "calibrated": 40}, "mine": {"trained": 7, "calibrated": 0}},
    }
    terms = {
        "sets": {
            "polyps": {
                "title": "A set", "labels": "drawn by hand.", "terms": "research only", "limits": ["no clean bowel."],
            },
        },
        "weights": {"tiny": {"origin": "photographs.", "terms": "free.", "leaks": "nothing known."}},
    }  # fmt: skip
    cost = {
        "file_mb": 12.3, "parameters_m": 4.56, "encoder_parameters_m": 3.4,
        "modalities": {"endoscopy": {"size": 320, "gmacs": 1.766}},
    }  # fmt: skip
    return CardSources("toy", "9.8.7", "2030-01-02", card, cost, None, terms)


@pytest.fixture
def summary():
    score = {
        "n": 12,
        "groups": 7,
        "mean": 0.8,
        "low": 0.7,
        "high": 0.9,
        "median": 0.85,
        "tenth": 0.3,
        "below_half": 0.1,
    }
    row = {"title": "polyps", "counts": "present", "floor": 0.75, "aim": 0.9, "score": score}
    return {
        "made": {"command": "effsam evaluate data -o OUT", "date": "2030-01-01", "split": "val", "threads": 2,
                 "cores": 4, "machine": "Linux", "device": "cpu"},
        "rows": [row],
        "sets": {"polyps": {"files": 120}},
        "calibration": {"polyps": {"told": 12, "present": 11, "presence_right": 0.9, "presence_error": 0.05}},
        "time": {"median_ms": 120.4},
        "peak_mb": 803,
    }  # fmt: skip


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


SAYS = {
    "weights are named by their sum": ("", "sha256 of the weights: `ab12`"),
    "version and date": ("", "Version 9.8.7, 2030-01-02"),
    "purpose": ("What it is for", "**Not a medical device.**"),
    "values": ("Input and output", "| endoscopy | 320 x 320, stretch | polyp 1 |"),
    "normalisation": ("Input and output", "mean (0.5000, 0.4000, 0.3000)"),
    "counts and terms": ("Data", "| polyps | 800 | 40 | 120 | research only |"),
    "a set without terms": ("Data", "| mine | 7 | 0 | – | not stated |"),
    "who drew": ("Data", "A set. Labels: drawn by hand."),
    "held out": ("Splits", "5% (chosen by a hash"),
    "first weights": ("Initialisation", "Encoder `tiny`: photographs."),
    "leaks": ("Initialisation", "What it may leak: nothing known."),
    "rates": ("Recipe", "| rate | 0.0008 |"),
    "options": ("Recipe", "| sizes | endoscopy 320 |"),
    "bytes": (
        "Size and cost",
        "12.3 MB on disk, 4.56 million parameters, 3.4 million of them in the encoder",
    ),
    "arithmetic": ("Size and cost", "| endoscopy | 320 | 1.77 |"),
    "scores": ("Numbers", "| polyps | 12 | 7 | **0.800** | 0.700 to 0.900 |"),
    "the command": ("Numbers", "`effsam evaluate data -o OUT` on 2030-01-01"),
    "costs": ("Numbers", "file to overlay: 120 ms; peak memory: 803 MB."),
    "calibration fitted": ("Presence and quality", "| endoscopy/polyp | 1.25 | -0.50 | 30 | 12 |"),
    "calibration checked": ("Presence and quality", "| polyps | 12 | 11 | 90% | 0.050 |"),
    "limits of a set": ("Limitations", "- polyps: no clean bowel."),
    "limits of all": ("Limitations", "slice by slice"),
}


@pytest.mark.parametrize(("title", "said"), SAYS.values(), ids=SAYS)
def test_the_card_says(sources, summary, title, said):
    text = model_card(replace(sources, summary=summary))
    assert said in (section(text, title) if title else text)


@pytest.fixture
def promptable(sources, summary):
    """The sources of a promptable model, evaluated with a simulated user."""
    specs = {"": ImageSpec(256, "longest").to_json(), "ct": ImageSpec(256, "stretch").to_json()}
    card = {
        **sources.card,
        "kind": "promptable",
        "specs": specs,
        "network": {"image_encoder": {"name": "tiny_vit"}, "prompt_size": None},
        "calibration": {},
    }
    told = {"told": 0, "present": 0, "masks": 9, "quality_error": 0.125, "quality_bias": -0.0625}
    measured = {
        **summary,
        "made": {**summary["made"], "robot": {"start": "box", "clicks": 1, "jitter": 20}},
        "rounds": [{"prompt": "box"}, {"prompt": "box + 1 click"}],
        "calibration": {"polyps": told},
    }
    return replace(sources, card=card, summary=measured)


PROMPTED = {
    "purpose": ("What it is for", "to outline what a box or clicks show"),
    "prompt": ("Input and output", "say what to outline; without them there is no answer"),
    "own input": ("Input and output", "| ct | 256 x 256, stretch |"),
    "input of all others": ("Input and output", "| any other | 256 x 256, longest |"),
    "first weights": ("Initialisation", "Encoder `tiny_vit`"),
    "arithmetic": ("Size and cost", "encoder and decoder, one box:"),
    "user": ("Numbers", "a simulated user who prompts (box + 1 click), the modality told"),
    "time": ("Numbers", "reading, encoder and decoder: 120 ms"),
    "quality": ("Quality", "| polyps | 9 | 0.125 | -0.062 |"),
    "limits": ("Limitations", "It outlines what it is prompted for, rightly or not"),
}


@pytest.mark.parametrize(("title", "said"), PROMPTED.values(), ids=PROMPTED)
def test_the_card_of_a_promptable_model_says(promptable, title, said):
    text = model_card(promptable)
    assert said in section(text, title)
    assert "presence" not in text.lower()
    assert "no prompt" not in text


SILENT = {
    "no evaluation": ({}, "Numbers", "Not evaluated."),
    "no data": ({"data": {}}, "Data", "Not recorded."),
    "no recipe": ({"recipe": None}, "Recipe", "Not recorded."),
    "other first weights": (
        {"network": {"encoder": {"name": "tiny_vit"}}}, "Initialisation", "`tiny_vit`; where its first weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "title", "said"), SILENT.values(), ids=SILENT)
def test_what_is_not_known_is_said_to_be_so(sources, change, title, said):
    text = model_card(replace(sources, card={**sources.card, **change}))
    assert said in section(text, title)


def test_a_model_without_a_table_of_terms_has_a_card_too(sources):
    text = model_card(replace(sources, terms={}))
    assert "| polyps | 800 | 40 | – | not stated |" in section(text, "Data")


def test_what_the_settings_do_not_tell_stands_below_them(sources):
    told = replace(sources, card={**sources.card, "history": ["weights were shifted half way."]})
    assert "What the settings do not tell:\n\n- weights were shifted half way." in model_card(told)
    assert "What the settings do not tell" not in model_card(sources)
