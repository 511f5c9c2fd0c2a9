# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training pictures of no modality that is known here."""

from __future__ import annotations

from monai_effsam.data.routing.clones import RoutingSource
from monai_effsam.data.routing.series import (
    ALONE,
    ATLAN,
    NOT_STATED,
    OLDER,
    SARAH,
    TILED,
    flex,
    slightly,
)

__all__ = ["FOREIGN"]

FOREIGN: tuple[RoutingSource, ...] = (
    # Foreign
    RoutingSource(
        "balloons", "", "jogibamou/MaskRCNNLaparoscopicCholecystectomy",
        "bd173a63d2ac01dc5b86e4040f84f21b711527f2",
        r"maskrcnn-benchmark/maskrcnn_benchmark/data/datasets/coco/.*\.(jpg|png)", 87,
        "photographs of people, things and balloons", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "camvid", "", ATLAN + "CamVid-11-Classes", "a402937e5fb889dbe015406d4de98ed2ea21b215",
        flex("CamVid11"), 36, "streets from a car", "MIT, says the repository", group=ALONE,
    ),
    RoutingSource(
        "tile", "", ATLAN + "MVTec-TILE", "197c7bea74379b056feec1bd43333bbd24a086b1", flex("MVTEC-TILE"),
        36, "tiles, close", "CC BY-NC-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "transistor", "", ATLAN + "MVTec-TRANSISTOR", "4a8fe78effcdc2da5e3d1aaf764f0a5b57f05b68",
        flex("MVTEC-TRANSISTOR"), 36, "transistors, close", "CC BY-NC-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "seismic", "", ATLAN + "Netherland-F3-Interpretation", "18d3a85b1034c2627c9fdb14257b17e540e9ae83",
        flex("Netherland-F3"), 36, "cross-sections of the sea floor, grey like ultrasound", NOT_STATED,
        group=ALONE,
    ),
    RoutingSource(
        "aerial", "", ATLAN + "Aerial-Imagery-Road", "519b8639c3dd5563284d01d865395a5927fe2b8e",
        flex("Road"), 36, "Japan from aeroplanes", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "pap", "", OLDER + "Pap-Smear", "257371b8b2453782e463ee172437732f2faeb674",
        r"dataset/Pap-Smear/severe_dysplastic/test/images/[^/]+\.(png|jpg)", 129,
        "single cells under a microscope", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "lizard", "", SARAH + "Lizard", "94be57b6fd04873c9d7c349e14949bb51b87e3fc", flex("Lizard"), 32,
        "stained bowel under a microscope", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "glas", "", SARAH + "GlaS-MICCAI2015", "70874fef48da55aea2f7c87c7e68a2bde1be2fe2", flex("GlaS"),
        18, "stained bowel under a microscope", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "nuinsseg", "", OLDER + "Pre-Augmented-Oesophagus", "4aef0d82796be1bb78393669ea55655d5a403ce6",
        slightly("Oesophagus"), 20, "stained oesophagus under a microscope", NOT_STATED, group=ALONE,
    ),
    RoutingSource(
        "deepcell", "", OLDER + "Augmented-DeepCell", "b288ddcd49bac758ef57c011f2cb00528862efb8",
        slightly("DeepCell"), 20, "fluorescent nuclei", "non-commercial academic use", group=ALONE,
    ),
    RoutingSource(
        "food", "", "Shyam-daniel/testing12", "4926a00e69bd7bd9828b4df02b3efa8d7b40f2c3",
        r"(Train|Test)ing/[^/]+/[^/]+", 457, "photographs of dishes, in folders named after tumours", NOT_STATED,
        group=ALONE,
    ),
    RoutingSource(
        "wood", "", ATLAN + "MVTec-WOOD", "84771561a1134f15374086f35035eb8e56ad23d0", flex("MVTEC-WOOD"), 36,
        "wood, close", "CC BY-NC-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "leather", "", ATLAN + "MVTec-LEATHER", "a0c430734394e3c6de99f28d87d3112ae1312594",
        flex("MVTEC-LEATHER"), 36, "leather, close, like skin", "CC BY-NC-SA 4.0", group=ALONE,
    ),
    RoutingSource(
        "kitti", "", TILED + "KITTI-Stereo-2015", "e10c34a0432a6c9fe5dc949fb27bbcf03d4b8f4a", flex("KITTI"), 48,
        "streets from a car, very wide", "CC BY-NC-SA 3.0", group=ALONE,
    ),
    RoutingSource(
        "ships", "", ATLAN + "HRSID-Satellite-Imagery-Ship", "15d0d587a51442a072468c8bad3d179668c6edfc",
        flex("HRSID"), 36, "sea and coasts by radar, grey", "GPL-3", group=ALONE,
    ),
    RoutingSource(
        "oil", "", ATLAN + "Oil-Spill", "d50babe6840a0f6464abfef42e9197d3256a1924", flex("Oil-Spill"), 36,
        "sea by radar, grey like ultrasound", "unknown, says the repository", group=ALONE,
    ),
)  # fmt: skip
"""Photographs, textures, views from above, microscopy."""
