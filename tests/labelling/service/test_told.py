# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Who tells the modality of an image in the app: its file, whoever gives it for all, its looks; in this order."""

from types import SimpleNamespace

import pytest

pytest.importorskip("monailabel")

from monai_effsam.inference.modality import ToldModality
from monai_effsam.labelling import images
from monai_effsam.labelling.images import OpenedImage

KNOWN = ("ct", "mr", "ultrasound")


@pytest.mark.parametrize(
    ("file", "given", "expected"),
    [
        ("ct", "mr", ("ct", "dicom")),
        (None, "mr", ("mr", "caller")),
        ("xray", "mr", ("mr", "caller")),
        (None, None, ("ultrasound", "router")),
        ("xray", "fundus", ("ultrasound", "router")),
    ],
)
def test_the_first_that_the_model_knows_counts(monkeypatch, file, given, expected):
    monkeypatch.setattr(images, "looks_like", lambda image: ToldModality("ultrasound", "router"))
    opened = OpenedImage(SimpleNamespace(modality=file))
    assert opened.told(given, KNOWN)[:2] == expected


def test_looks_count_only_where_they_are_asked_for_and_known(monkeypatch):
    monkeypatch.setattr(images, "looks_like", lambda image: ToldModality("ultrasound", "router"))
    opened = OpenedImage(SimpleNamespace(modality=None))
    assert opened.told(None, KNOWN, look=False).modality is None
    assert opened.told(None, ("ct", "mr")).modality is None
