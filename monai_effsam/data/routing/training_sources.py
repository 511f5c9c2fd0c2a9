# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of further archives, hospitals and devices that the modality router can learn from: where they are.

Nothing of them is in this package. Each row names a public repository that a user can clone. None is of an archive that
routers are judged on (`evaluation/routing_source_table.py`). Some pictures of the series of repositories are copies
that these have turned or warped; they are left in, as every view is varied anyway.
"""

from __future__ import annotations

from monai_effsam.data.routing.clones import RoutingSource

__all__ = ["TRAINING_SOURCES"]

_SARAH = "sarah-antillia/TensorFlow-FlexUNet-Image-Segmentation-"
_OLDER = "sarah-antillia/Tensorflow-Image-Segmentation-"
_ATLAN = "atlan-antillia/TensorFlow-FlexUNet-Image-Segmentation-"
"""Series of repositories that keep a few pictures of many public sets, each laid out alike."""


def _flex(project: str) -> str:
    return rf"projects/TensorFlowFlexUNet/{project}/mini_test/images/[^/]+\.(png|jpg)"


def _slightly(project: str) -> str:
    return rf"projects/TensorflowSlightlyFlexibleUNet/{project}/mini_test/images/[^/]+\.(png|jpg)"


_NOT_STATED = "not stated"

_ALONE = "()"
"""One group: the paths do not tell patients apart, so nothing of the source is held out."""

_LIMBS = (
    "004d9a28", "02ac8113", "03333123", "03f9ef28", "05a4c8f8", "06c4b6a8", "0938b7ea", "0a93ae1b",
    "0d404134", "11b5f4fa", "140f5753", "18e0e893", "1b4cfd2d", "2902b408", "2cc2836d", "36f142fd",
    "399cd97b", "47db3fc1", "58b40bc2", "6f583b8c", "70a99a58", "7857881f", "9119bff4", "b41cc1bb",
    "b5901134", "e4a4aaaa", "e880114f", "ec3ac929", "f3c22f93", "fe23a598",
)  # fmt: skip
"""First digits of the names of files that show a limb, each picture once, without frames drawn into it."""

TRAINING_SOURCES: tuple[RoutingSource, ...] = (
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
        "a removal of a gall bladder with smoke", "CC BY-NC-SA 3.0", group=_ALONE,
    ),
    RoutingSource(
        "sinus", "endoscopy", "lppllppl920/EndoscopyDepthEstimation-Pytorch",
        "bc32e07ea218229b61efa0047c8ea2040c942d4c", r"example_training_data_root/.*\.jpg", 36,
        "one sequence in a nasal sinus", "GPL-3 in the repository", group=_ALONE,
    ),
    # Ultrasound
    RoutingSource(
        "gallbladder", "ultrasound", "youngyzzZ/Sonographic-Gallbladder-Images-for-BA-Diagnosis",
        "e5ea0d7e1d2e7e626d2e0ab22257aaefb2fd70df", r"data/test_data/[^/]+\.(?i:jpe?g|png)", 841,
        "gall bladders of infants, cut out, Chinese hospitals", "MIT", group=r"/(\d+)_",
    ),
    RoutingSource(
        "kidney_us", "ultrasound", _SARAH + "Kidney-Stone-Ultrasound",
        "1f6f5945cdb8600272e401680e05382a3b2edf08", _flex("Kidney-Stone-Ultrasound"), 48,
        "kidneys with stones, sector scans with callipers", "CC BY-SA 4.0", group=_ALONE,
    ),
    RoutingSource(
        "breast_usg", "ultrasound", _SARAH + "Breast-Lesions-USG",
        "cadab45f47e833b2954b16f66cb43fcb412d186b", _flex("Breast-Lesions-USG"), 24,
        "breasts, Polish centres, several scanners", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "bus_uc", "ultrasound", _OLDER + "BUS-UC-Malignant", "5f27b0f85ddb84b368aa1418dbb4f1d8aa71374b",
        _slightly("BUS-UC-Malignant"), 20, "breasts, of a teaching collection", "CC BY 4.0", group=_ALONE,
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
        "hands, forearms, elbows and shoulders, some turned", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "openist", "xray", "pi-null-mezon/OpenIST", "0a3fceb1ac58e1848f994ee6ec226c58e55d70b0",
        r"Datasets/Chest_x-ray/[^@/]+\.jpg", 275, "chests of a teaching collection", _NOT_STATED,
    ),
    # Fundus
    RoutingSource(
        "stare", "fundus", _SARAH + "STARE-Retinal-Vessel", "4063b46b7fb16a93db1307c161513baf5b70376e",
        _flex("STARE"), 18, "a film camera in California, some warped", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "rop", "fundus", _SARAH + "Ridge-in-Retinopathy-of-Prematurity",
        "415ad48507f2ef61bb1d43e622caebfaabce041e", _flex("HVDROPDB-Ridge"), 24,
        "prematurely born, two contact cameras in Pune, all warped", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "diaretdb1", "fundus", _OLDER + "Pre-Augmented-Hemorrhages",
        "53a8d4f5f3082b8ceee60c614ce3ce76957259e9", _slightly("Hemorrhages"), 24, "Kuopio",
        "unknown, says the repository", group=_ALONE,
    ),
    # CT
    RoutingSource(
        "aisd", "ct", _SARAH + "Automated-Ischaemic-Stroke-NCCT",
        "e4c6d060aaa16c526e30946ff8016a6bef4253bf", _flex("AISD"), 24, "heads with stroke, brain window",
        _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "ich", "ct", _SARAH + "Brain-Intracranial-Hemorrhage", "2d741c81afe476027370d53d866a29894cd1b8fd",
        _flex("Brain-Intracranial-Hemorrhage"), 36, "heads with injuries, Al Hilla Teaching Hospital",
        "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "nasal", "ct", "monikabaabu/Nasal-Polyp-Segmentation", "208b302ab0e1572ce1f71782e5130fe5985b1fdb",
        r"dataset/(train|test)/images/[^/]+(?<!_aug\d)\.(jpe?g|png)", 170,
        "noses and sinuses from the front, from the web, some photographed from film", _NOT_STATED,
        group=_ALONE,
    ),
    RoutingSource(
        "mandible", "ct", _OLDER + "Pre-Augmented-Mandible", "0f43f51d94d4e2f2e4289e0440b6836586a240f2",
        _slightly("Augmented-Mandible"), 10, "heads and necks, bone window", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "kits", "ct", _SARAH + "KiTS19-Kidney-Tumor", "07dfb454cfd97b51e0c4bb064f1cf135255ba512",
        _flex("Kidney-Tumor"), 24, "kidneys, Minnesota", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "kidney_stone_ct", "ct", _SARAH + "Mendeley-Kidney-Stone-CT",
        "36a92f1df3746f3b7ef387cb16594ad9bb9db772", _flex("Mendeley-Kidney-Stone-CT"), 48,
        "abdomens without contrast agent", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "hepatic", "ct", _SARAH + "HepaticVessel", "a581892081bfd4acf847131d623d03164fb51eca",
        _flex("HepaticVessel"), 24, "livers, Memorial Sloan Kettering, on their side", "CC BY-SA 4.0",
        group=_ALONE,
    ),
    RoutingSource(
        "spleen", "ct", _OLDER + "Augmented-Spleen", "6e30b8af38408ed6569971229960cc626017de9d",
        _slightly("Spleen"), 18, "upper abdomens, Memorial Sloan Kettering", "CC BY-SA 4.0", group=_ALONE,
    ),
    RoutingSource(
        "aorta", "ct", _SARAH + "Aorta", "86db699627f8592557e901eae5b423403c1e8b94", _flex("Aorta"), 36,
        "chests, wide window", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "hocm", "ct", _SARAH + "Hypertrophic-Obstructive-Cardiomyopathy",
        "f51a67b72774b9ba42722f2900583cd9d61afdff", _flex("HOCMvalves"), 36, "hearts with contrast agent",
        _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "lung_tumour", "ct", _SARAH + "Lung-Tumor", "6c314fa75a71c0b6c27135005bca97acb0460313",
        _flex("Lung-Tumor"), 24, "chests, on their side", "CC BY-SA 4.0", group=_ALONE,
    ),
    RoutingSource(
        "covid100", "ct", _SARAH + "COVID-19-Infection", "c0e462e410664babb2d65091045783fa72d6dc07",
        _flex("COVID-19"), 24, "chests, Italian radiologists' society, on their side", _NOT_STATED,
        group=_ALONE,
    ),
    # MR
    RoutingSource(
        "full_head", "mr", _SARAH + "Full-Head-T1W", "199bd12bd009c5af9843e5ec871503081d791957",
        _flex("Full-Head-T1W"), 36, "heads and necks after stroke, T1", "CC BY-NC-SA 4.0",
        group=r"/(\d+)_\d+\.\w+$",
    ),
    RoutingSource(
        "ms_flair", "mr", _OLDER + "Multiple-Sclerosis-Brain-MRI-Flair",
        "1d3cdc9a04ab3fa89640b7b3d583dde766a5be0e",
        r"projects/TensorflowSlightlyFlexibleUNet/Multiple-Sclerosis-Brain-MRI-Flair/flair_mini_test/images/[^/]+\.(png|jpg)",
        28, "heads with multiple sclerosis, Baghdad, FLAIR", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "cerebrum7t", "mr", _SARAH + "SEREBRUM-7T", "67ad5fa1f7fe318ea26e3f6b63468230e40517ba",
        _flex("SEREBRUM-7T"), 36, "heads at 7 tesla, Glasgow", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "nasopharynx", "mr", _OLDER + "Augmented-Nasopharyngeal-Carcinoma-T2WI",
        "5316e75bc89975a76d9a96118282bba253c4d596",
        r"projects/TensorflowSlightlyFlexibleUNet/Nasopharyngeal-Carcinoma-T2WI/mini_test[^/]*/images/[^/]+\.(png|jpg)",
        25, "skull bases, T2", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "ispy_breast", "mr", _SARAH + "BreastDCEDL-Breast-Cancer",
        "8707eaef20c9a7e9c15edba309a7b12fca0c03a6", _flex("BreastDCEDL"), 40,
        "breasts from the side with contrast agent, ISPY-1", "CC BY-NC 4.0", group=_ALONE,
    ),
    RoutingSource(
        "left_atrium", "mr", _SARAH + "Left-Atrial", "a02af8f8f3f0ff5ff5826704eebe36246fe06716",
        _flex("Left-Atrial"), 36, "chests from the side", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "knee_mr", "mr", _SARAH + "KneeBones3Dify", "61899209444329bc6f2f17aa58661677671c4c76",
        _flex("KneeBones3Dify"), 36, "knees across", "CC BY 4.0", group=_ALONE,
    ),
    RoutingSource(
        "kidney_mr", "mr", _SARAH + "Kidney-Disease-T2W", "ab90332fe3bcddf1a906ed5423cf1d237e21512e",
        _flex("Kidney-Disease-T2W"), 36, "abdomens from the front, Nottingham, T2", "CC BY 4.0",
        group=_ALONE,
    ),
    # Foreign
    RoutingSource(
        "balloons", "", "jogibamou/MaskRCNNLaparoscopicCholecystectomy",
        "bd173a63d2ac01dc5b86e4040f84f21b711527f2",
        r"maskrcnn-benchmark/maskrcnn_benchmark/data/datasets/coco/.*\.(jpg|png)", 87,
        "photographs of people, things and balloons", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "camvid", "", _ATLAN + "CamVid-11-Classes", "a402937e5fb889dbe015406d4de98ed2ea21b215",
        _flex("CamVid11"), 36, "streets from a car", "MIT, says the repository", group=_ALONE,
    ),
    RoutingSource(
        "tile", "", _ATLAN + "MVTec-TILE", "197c7bea74379b056feec1bd43333bbd24a086b1", _flex("MVTEC-TILE"),
        36, "tiles, close", "CC BY-NC-SA 4.0", group=_ALONE,
    ),
    RoutingSource(
        "transistor", "", _ATLAN + "MVTec-TRANSISTOR", "4a8fe78effcdc2da5e3d1aaf764f0a5b57f05b68",
        _flex("MVTEC-TRANSISTOR"), 36, "transistors, close", "CC BY-NC-SA 4.0", group=_ALONE,
    ),
    RoutingSource(
        "seismic", "", _ATLAN + "Netherland-F3-Interpretation", "18d3a85b1034c2627c9fdb14257b17e540e9ae83",
        _flex("Netherland-F3"), 36, "cross-sections of the sea floor, grey like ultrasound", _NOT_STATED,
        group=_ALONE,
    ),
    RoutingSource(
        "aerial", "", _ATLAN + "Aerial-Imagery-Road", "519b8639c3dd5563284d01d865395a5927fe2b8e",
        _flex("Road"), 36, "Japan from aeroplanes", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "pap", "", _OLDER + "Pap-Smear", "257371b8b2453782e463ee172437732f2faeb674",
        r"dataset/Pap-Smear/severe_dysplastic/test/images/[^/]+\.(png|jpg)", 129,
        "single cells under a microscope", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "lizard", "", _SARAH + "Lizard", "94be57b6fd04873c9d7c349e14949bb51b87e3fc", _flex("Lizard"), 32,
        "stained bowel under a microscope", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "glas", "", _SARAH + "GlaS-MICCAI2015", "70874fef48da55aea2f7c87c7e68a2bde1be2fe2", _flex("GlaS"),
        18, "stained bowel under a microscope", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "nuinsseg", "", _OLDER + "Pre-Augmented-Oesophagus", "4aef0d82796be1bb78393669ea55655d5a403ce6",
        _slightly("Oesophagus"), 20, "stained oesophagus under a microscope", _NOT_STATED, group=_ALONE,
    ),
    RoutingSource(
        "deepcell", "", _OLDER + "Augmented-DeepCell", "b288ddcd49bac758ef57c011f2cb00528862efb8",
        _slightly("DeepCell"), 20, "fluorescent nuclei", "non-commercial academic use", group=_ALONE,
    ),
)  # fmt: skip
"""In the order of the documentation."""
