# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training pictures of ultrasound and X-ray."""

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

__all__ = ["PLANAR"]

_LIMBS = (
    "004d9a28", "02ac8113", "03333123", "03f9ef28", "05a4c8f8", "06c4b6a8", "0938b7ea", "0a93ae1b",
    "0d404134", "11b5f4fa", "140f5753", "18e0e893", "1b4cfd2d", "2902b408", "2cc2836d", "36f142fd",
    "399cd97b", "47db3fc1", "58b40bc2", "6f583b8c", "70a99a58", "7857881f", "9119bff4", "b41cc1bb",
    "b5901134", "e4a4aaaa", "e880114f", "ec3ac929", "f3c22f93", "fe23a598",
)  # fmt: skip
"""First digits of the names of files that show a limb, each picture once, without frames drawn into it."""

PLANAR: tuple[RoutingSource, ...] = (
    # Ultrasound
    RoutingSource(
        "gallbladder", "ultrasound", "youngyzzZ/Sonographic-Gallbladder-Images-for-BA-Diagnosis",
        "e5ea0d7e1d2e7e626d2e0ab22257aaefb2fd70df", r"data/test_data/[^/]+\.(?i:jpe?g|png)", 841,
        "gall bladders of infants, cut out, Chinese hospitals", "MIT", group=r"/(\d+)_",
    ),
    RoutingSource(
        "kidney_us", "ultrasound", SARAH + "Kidney-Stone-Ultrasound",
        "1f6f5945cdb8600272e401680e05382a3b2edf08", flex("Kidney-Stone-Ultrasound"), 48,
        "kidneys with stones, sector scans with callipers", "CC BY-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "breast_usg", "ultrasound", SARAH + "Breast-Lesions-USG",
        "cadab45f47e833b2954b16f66cb43fcb412d186b", flex("Breast-Lesions-USG"), 24,
        "breasts, Polish centres, several scanners", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "bus_uc", "ultrasound", OLDER + "BUS-UC-Malignant", "5f27b0f85ddb84b368aa1418dbb4f1d8aa71374b",
        slightly("BUS-UC-Malignant"), 20, "breasts, of a teaching collection", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "tte47", "ultrasound", "thrive-centre/thrive-centre.github.io",
        "593f361ee85130e3b3e15aa03be4a8ae6f03978a", r"assets/images/datasets/TTE47/[^/]+\.png", 47,
        "hearts, one picture of each view, with colour, Doppler curves and M-mode, London", NOT_STATED,
        group=ALONE,
    ),
    # X-ray
    RoutingSource(
        "scoliosis", "xray", "AdamSkog/Scoliosis-Xray-Classification",
        "a5b5b2972851c9b97498d068b78c55ab73d9c993", r"data/(Scol|Normal)/[^/]+\.jpg", 255,
        "spines from the front, some photographed from a light box", "MIT", group=r"data/(\w+/N\d+)",
    ),
    RoutingSource(
        "upper_limb", "xray", "FangCao0510/Bone-Fracture-Detection",
        "890addbd9d5365000c1073b2b470c38e738672d2",
        r"WebChanDoanGayTay/Uploads/(" + "|".join(_LIMBS) + ")-[^/]+", 30,
        "hands, forearms, elbows and shoulders, some turned", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "openist", "xray", "pi-null-mezon/OpenIST", "0a3fceb1ac58e1848f994ee6ec226c58e55d70b0",
        r"Datasets/Chest_x-ray/[^@/]+\.jpg", 275, "chests of a teaching collection", NOT_STATED,
    ),
    RoutingSource(
        "dc1000", "xray", "Zzz512/MLUA", "17b73ac8a1f97cc556ff604ed686810537778580",
        r"dataset/test/images(_cut)?/[^/]+\.png", 200,
        "panoramas of 100 sets of teeth, whole and cut out", NOT_STATED,
        group=r"/(\d+)\.png",
    ),
    RoutingSource(
        "infant_hips", "xray", "radoss-org/radoss-creative-commons",
        "185aed296005617d13bc959b9e2853749c524586", r"other/xray/331_DDH_\d+\.jpg", 10,
        "pelves of infants, Jordan", "CC BY 4.0", group=ALONE,
    ),
)  # fmt: skip
"""In the order of the documentation."""
