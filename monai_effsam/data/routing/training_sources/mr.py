# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training pictures of magnetic resonance."""

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

__all__ = ["MR"]

MR: tuple[RoutingSource, ...] = (
    # MR
    RoutingSource(
        "full_head", "mr", SARAH + "Full-Head-T1W", "199bd12bd009c5af9843e5ec871503081d791957",
        flex("Full-Head-T1W"), 36, "heads and necks after stroke, T1", "CC BY-NC-SA 4.0",
        group=r"/(\d+)_\d+\.\w+$",
    ),
    RoutingSource(
        "ms_flair", "mr", OLDER + "Multiple-Sclerosis-Brain-MRI-Flair",
        "1d3cdc9a04ab3fa89640b7b3d583dde766a5be0e",
        r"projects/TensorflowSlightlyFlexibleUNet/Multiple-Sclerosis-Brain-MRI-Flair/flair_mini_test/images/[^/]+\.(png|jpg)",
        28, "heads with multiple sclerosis, Baghdad, FLAIR", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "cerebrum7t", "mr", SARAH + "SEREBRUM-7T", "67ad5fa1f7fe318ea26e3f6b63468230e40517ba",
        flex("SEREBRUM-7T"), 36, "heads at 7 tesla, Glasgow", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "nasopharynx", "mr", OLDER + "Augmented-Nasopharyngeal-Carcinoma-T2WI",
        "5316e75bc89975a76d9a96118282bba253c4d596",
        r"projects/TensorflowSlightlyFlexibleUNet/Nasopharyngeal-Carcinoma-T2WI/mini_test[^/]*/images/[^/]+\.(png|jpg)",
        25, "skull bases, T2", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "ispy_breast", "mr", SARAH + "BreastDCEDL-Breast-Cancer",
        "8707eaef20c9a7e9c15edba309a7b12fca0c03a6", flex("BreastDCEDL"), 40,
        "breasts from the side with contrast agent, ISPY-1", "CC BY-NC 4.0", group=ALONE,
    ),
    RoutingSource(
        "left_atrium", "mr", SARAH + "Left-Atrial", "a02af8f8f3f0ff5ff5826704eebe36246fe06716",
        flex("Left-Atrial"), 36, "chests from the side", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "knee_mr", "mr", SARAH + "KneeBones3Dify", "61899209444329bc6f2f17aa58661677671c4c76",
        flex("KneeBones3Dify"), 36, "knees across", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "kidney_mr", "mr", SARAH + "Kidney-Disease-T2W", "ab90332fe3bcddf1a906ed5423cf1d237e21512e",
        flex("Kidney-Disease-T2W"), 36, "abdomens from the front, Nottingham, T2", "CC BY 4.0",
        group=ALONE,
    ),
    RoutingSource(
        "dementia", "mr", "atlan-antillia/EfficientNet-Alzheimer-s-Disease",
        "57a747020777d358fbcd19cd72dec6c3ac84b21e",
        r"projects/Alzheimer's-Disease/Resampled_Alzheimer's_Images/test/[^/]+/[^/]*[05]\)?\.jpg", 203,
        "heads without their skulls, some turned or shifted, from the web", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "pd25", "mr", "sarah-antillia/Tensorflow-FlexUNet-Image-Segmentation-Brain-MRI-PD25",
        "6a12bb88badf3abe78f8975697f08425b6b7a086", flex("Brain-MRI-PD25"), 24,
        "slices of a mean of 25 heads, T1, T2 and others mixed", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "glioblastoma", "mr", SARAH + "Mendeley-Glioblastoma-Multiforme-MRI",
        "853e53ff6d9f3cff43e3e4f73b99a84efcbc567b", flex("Mendeley-Glioblastoma-Multiforme"), 48,
        "heads in three planes, several sequences", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "emidec", "mr", SARAH + "EMIDEC", "b3605d14851c5000e32beabc75fe0f86db91b087", flex("EMIDEC-Heart-MRI"),
        48, "hearts after infarction, late enhancement, Dijon", "CC BY-NC-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "prostate_planes", "mr", SARAH + "Prostate-Cancer-MRI", "b6b28d5be144e0afe4a6631cba5edebad6ab78eb",
        flex("Prostate-Cancer-MRI"), 42, "pelves across, from the side and from the front", "CC BY-SA 3.0",
        group=ALONE,
    ),
    RoutingSource(
        "prostate_across", "mr", SARAH + "Transverse-Plane-Prostate-Cancer-MRI",
        "e0788d892c16af8215289cb2a6377db07ebe351c", flex("Transverse-Plane-Prostate-Cancer-MRI"), 42,
        "pelves across, T2", "unknown, says the repository", group=ALONE,
    ),
    RoutingSource(
        "pancreas_t2", "mr", OLDER + "Pancreas-T2W-MRI", "ac7057cef5411f2cc4a88fb254ead3b83b4fe76a",
        slightly("Pancreas-T2"), 30, "upper abdomens of several centres, T2", "GPL-3", group=ALONE,
    ),
    RoutingSource(
        "pancreas_t1", "mr", OLDER + "Pancreas-T1W-MRI", "5498c30f05f761286dd66a7202e4181f0a4a36ba",
        slightly("Pancreas-T1"), 24, "upper abdomens of several centres, T1", "GPL-3", group=ALONE,
    ),
)  # fmt: skip
"""In the order in which they were gathered."""
