# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training pictures of visible light: endoscopy, dermoscopy, fundus."""

from __future__ import annotations

from monai_effsam.data.routing.clones import RoutingSource
from monai_effsam.data.routing.series import (
    ALONE,
    NOT_STATED,
    OLDER,
    SARAH,
    flex,
    slightly,
)

__all__ = ["COLOUR"]

COLOUR: tuple[RoutingSource, ...] = (
    # Endoscopy
    RoutingSource(
        "laparoscopy", "endoscopy", "egoodman92/laparoscopic-dataset",
        "88d8b5108bf9c852d87fc4ca45aa101da5a7cfb2", r"images/[^/]+\.jpg", 320,
        "frames of 16 removals of appendix or gall bladder, Intermountain and Stanford", "MIT",
        group=r"/(\d+-\d+)-frame",
    ),
    RoutingSource(
        "smoke", "endoscopy",
        "ssalazarcolores/Desmoking-laparoscopy-surgery-images-using-an-image-to-image-translation-guided-by-an-embedded-Dark-",
        "e8aadd3bf288f69088dcd124dc85436816551e49", r"datasets/laparoscopy/input/[^/]+\.(png|jpg)", 25,
        "a removal of a gall bladder with smoke", "CC BY-NC-SA 3.0", group=ALONE,
    ),
    RoutingSource(
        "sinus", "endoscopy", "lppllppl920/EndoscopyDepthEstimation-Pytorch",
        "bc32e07ea218229b61efa0047c8ea2040c942d4c", r"example_training_data_root/.*\.jpg", 36,
        "one sequence in a nasal sinus", "GPL-3 in the repository", group=ALONE,
    ),
    RoutingSource(
        "neopolyp", "endoscopy", "namhainguyen2803/BKAI-IGH-NeoPolyp-Challenge",
        "4a3b294af204c9d63ed844dd73db4c2abd4cbaa9", r"dataset/test/test/[^/]+", 200,
        "colonoscopies, white light and enhanced colours, Hanoi", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "gastroscopy", "endoscopy", "fengcherenxi/LAG", "7eae60e747e0ce17e5c679ea09bfef609b242272",
        r"data/(WLI|LCI)_[^/]+/[^/]+\.TIF", 30,
        "stomachs, white light and linked colours, Chengdu", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "larynx", "endoscopy", "imesluh/vocalfolds", "82485aea8db1fe87d5a2f6bab8997a1f4ce9d9c4",
        r"img/.*[048](_l)?\.png", 150, "vocal folds during two operations, Hanover", "CC BY 4.0", group=ALONE,
    ),
    # Fundus
    RoutingSource(
        "stare", "fundus", SARAH + "STARE-Retinal-Vessel", "4063b46b7fb16a93db1307c161513baf5b70376e",
        flex("STARE"), 18, "a film camera in California, some warped", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "rop", "fundus", SARAH + "Ridge-in-Retinopathy-of-Prematurity",
        "415ad48507f2ef61bb1d43e622caebfaabce041e", flex("HVDROPDB-Ridge"), 24,
        "prematurely born, two contact cameras in Pune, all warped", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "diaretdb1", "fundus", OLDER + "Pre-Augmented-Hemorrhages",
        "53a8d4f5f3082b8ceee60c614ce3ce76957259e9", slightly("Hemorrhages"), 24, "Kuopio",
        "unknown, says the repository", group=ALONE,
    ),
    RoutingSource(
        "hei_med", "fundus", "lgiancaUTH/HEI-MED", "2d5b282e0f5c47d90b725855feb1f1e9f89b96eb",
        r"DMED/\(\d+[048]\)\.jpg", 30, "diabetics with and without macular oedema, Memphis",
        "non-commercial research only", group=ALONE,
    ),
)  # fmt: skip
"""In the order of the documentation."""
