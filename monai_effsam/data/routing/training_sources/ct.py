# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training pictures of computed tomography."""

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

__all__ = ["CT"]

CT: tuple[RoutingSource, ...] = (
    # CT
    RoutingSource(
        "aisd", "ct", SARAH + "Automated-Ischaemic-Stroke-NCCT",
        "e4c6d060aaa16c526e30946ff8016a6bef4253bf", flex("AISD"), 24, "heads with stroke, brain window",
        NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "ich", "ct", SARAH + "Brain-Intracranial-Hemorrhage", "2d741c81afe476027370d53d866a29894cd1b8fd",
        flex("Brain-Intracranial-Hemorrhage"), 36, "heads with injuries, Al Hilla Teaching Hospital",
        "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "nasal", "ct", "monikabaabu/Nasal-Polyp-Segmentation", "208b302ab0e1572ce1f71782e5130fe5985b1fdb",
        r"dataset/(train|test)/images/[^/]+(?<!_aug\d)\.(jpe?g|png)", 170,
        "noses and sinuses from the front, from the web, some photographed from film", NOT_STATED,
        group=ALONE,
    ),
    RoutingSource(
        "mandible", "ct", OLDER + "Pre-Augmented-Mandible", "0f43f51d94d4e2f2e4289e0440b6836586a240f2",
        slightly("Augmented-Mandible"), 10, "heads and necks, bone window", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "kits", "ct", SARAH + "KiTS19-Kidney-Tumor", "07dfb454cfd97b51e0c4bb064f1cf135255ba512",
        flex("Kidney-Tumor"), 24, "kidneys, Minnesota", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "kidney_stone_ct", "ct", SARAH + "Mendeley-Kidney-Stone-CT",
        "36a92f1df3746f3b7ef387cb16594ad9bb9db772", flex("Mendeley-Kidney-Stone-CT"), 48,
        "abdomens without contrast agent", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "hepatic", "ct", SARAH + "HepaticVessel", "a581892081bfd4acf847131d623d03164fb51eca",
        flex("HepaticVessel"), 24, "livers, Memorial Sloan Kettering, on their side", "CC BY-SA 4.0",
        group=ALONE,
    ),
    RoutingSource(
        "spleen", "ct", OLDER + "Augmented-Spleen", "6e30b8af38408ed6569971229960cc626017de9d",
        slightly("Spleen"), 18, "upper abdomens, Memorial Sloan Kettering", "CC BY-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "aorta", "ct", SARAH + "Aorta", "86db699627f8592557e901eae5b423403c1e8b94", flex("Aorta"), 36,
        "chests, wide window", "CC BY 4.0", group=ALONE,
    ),
    RoutingSource(
        "hocm", "ct", SARAH + "Hypertrophic-Obstructive-Cardiomyopathy",
        "f51a67b72774b9ba42722f2900583cd9d61afdff", flex("HOCMvalves"), 36, "hearts with contrast agent",
        NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "lung_tumour", "ct", SARAH + "Lung-Tumor", "6c314fa75a71c0b6c27135005bca97acb0460313",
        flex("Lung-Tumor"), 24, "chests, on their side", "CC BY-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "covid100", "ct", SARAH + "COVID-19-Infection", "c0e462e410664babb2d65091045783fa72d6dc07",
        flex("COVID-19"), 24, "chests, Italian radiologists' society, on their side", NOT_STATED,
        group=ALONE,
    ),
    RoutingSource(
        "mbh", "ct", SARAH + "Multiclass-Brain-Hemorrhage", "c92ff5e2b5f8416f8cb55baf71800204ab37ca4d", flex("MBH"),
        36, "heads with haemorrhage, soft window", "MIT", group=ALONE,
    ),
    RoutingSource(
        "cpaisd", "ct", SARAH + "Core-Penumbra-Acute-Ischemic-Stroke-NCCT",
        "907cf21f01536b133cc575bd18a5a715f53fb49d", flex("CPAISD"), 24, "heads with stroke, some early", "CC BY 4.0",
        group=ALONE,
    ),
    RoutingSource(
        "stroke_ct", "ct", SARAH + "Real-Time-Brain-Stroke-CT", "86fb39950a7cd3baf9f0a06c63e55ab990cf926c",
        flex("Brain-Stroke-CT"), 24, "heads with stroke, narrow window, light", "CC0", group=ALONE,
    ),
    RoutingSource(
        "iq_oth", "ct", "Yusshiro/IQ-OTHNCCD-lung-cancer-detection",
        "4cbd7c966c8530e1d55b3ecbf9342b8e06cbc06d",
        r"The IQ-OTHNCCD lung cancer dataset/[^/]+ cases/[^/]*\(\d*[05]\)\.jpg", 219,
        "chests, soft and wide window, two Iraqi hospitals", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "lung_vessels", "ct", SARAH + "Pulmonary-Arteries-and-Veins",
        "f7b2576c1a11dc61ae004dbc7983da0a5f2165e6", flex("Lung-Vessel-CT"), 36,
        "single lungs, cut out, from the side and across", "Apache 2.0", group=ALONE,
    ),
    RoutingSource(
        "chest_wide", "ct", SARAH + "Chest-CT-Subset", "bfc8a191cfc645c847d2d55809ab5d646f768824",
        flex("Chest-CT-Subset"), 36, "chests, very wide window", "unknown, says the repository",
        group=ALONE,
    ),
    RoutingSource(
        "chd", "ct", SARAH + "Congenital-Heart-Disease", "f82eef989951fa1798f06eee19db2edd6d588922",
        flex("Congenital-Heart-Disease"), 36, "chests with congenital heart disease, Guangdong", "Apache 2.0",
        group=ALONE,
    ),
    RoutingSource(
        "bone_metastases", "ct", SARAH + "New-Bone-Metastases", "331a59e7fd8481b6b2831afc9ebc6090db9d5671",
        flex("NBM"), 24, "skulls, necks, chests and pelves, wide window", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "kidney_dhaka", "ct", "atlan-antillia/EfficientNet-Kidney-Disease",
        "2e86a794f825bee6d49855db726acbb375bc9b40",
        r"projects/Kidney-Disease/Resampled_Kidney_Disease_Simpler_Images/test/[^/]+/[^/]*[05]\)?\.jpg", 190,
        "abdomens with and without contrast agent, Dhaka", NOT_STATED, group=ALONE,
    ),
)  # fmt: skip
"""Heads first, then downwards as far as a source keeps to a part of the body."""
