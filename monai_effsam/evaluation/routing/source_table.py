# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures of other archives, hospitals and devices than any in training: where they are, to judge the router on.

Nothing of them is in this package. Each row names a public repository that a user can clone. The list was fixed before
any router was judged on it; a row leaves it only where the pictures are not what it says.
"""

from __future__ import annotations

from functools import partial

from monai_effsam.data.routing.clones import RoutingSource
from monai_effsam.data.routing.series import ATLAN, NOT_STATED, OLDER, SARAH, flex, slightly

__all__ = ["SOURCES"]

_PLAIN = r"(?!barrdistorted|deformed|distorted|rotated)[^/]+"
"""Pictures that their repository has not warped."""

_flex, _slightly = partial(flex, names=_PLAIN), partial(slightly, names=_PLAIN)

SOURCES: tuple[RoutingSource, ...] = (
    # Endoscopy
    RoutingSource(
        "cvc_clinicdb", "endoscopy", "krishnakaushik25/Medical-Image-Segmentation-DL",
        "f8944a0f482964541fde8597bd68168a772b0403", r"data/PNG/Original/\d+\.png", 612,
        "frames of colonoscopies, Hospital Clinic Barcelona", "research and education only", same_part=True,
    ),
    RoutingSource(
        "cvc_colondb", "endoscopy", OLDER + "Pre-Augmented-CVC-ColonDB",
        "3f5a87179094e127fe7535bdbd0dae40dad600fc", _slightly("CVC-ColonDB"), 19,
        "colonoscopies of an earlier set, Barcelona", "unknown, says the repository", same_part=True,
    ),
    RoutingSource(
        "etis", "endoscopy", SARAH + "ETIS-LaribPolypDB",
        "10ea8fb7d2852178351cb34ee5001e2e9d319e2d", _flex("ETIS-LaribPolypDB"), 11,
        "colonoscopies, Lariboisière Hospital Paris", "unknown, says the repository", same_part=True,
    ),
    RoutingSource(
        "edd2020", "endoscopy", SARAH + "Endoscopy-Multi-Organ-Disease",
        "78076af493f1567d84238b91eb82aeff77ebd9d2", _flex("EDD2020"), 33,
        "gastroscopies and colonoscopies of four centres, white light and narrow band", "CC BY 4.0", same_part=True,
    ),
    # Ultrasound
    RoutingSource(
        "muscle", "ultrasound", "timvanderzee/ultrasound-automated-algorithm",
        "1322e67a064e5220d99ba1dec6e70edbf6e74732",
        r"Example images/raw/TimTrack paper/dataset [12]/.*\.png", 209, "calf and thigh muscles", "CC BY 4.0",
    ),
    RoutingSource(
        "lung", "ultrasound", "Stroeber/covid19_ultrasound", "298046ae43762f44949c6aff4fb0bb19b0d7bfef",
        r"data/pocus_images/.*\.(?i:jpe?g|png)", 32, "lungs at the bedside, collected from publications",
        "several, per picture",
    ),
    RoutingSource(
        "liver_us", "ultrasound", SARAH + "Ultrasound-Liver",
        "389def31409102bf0ff12e16732814f68b6d1b3a", _flex("Ultrasound-Liver"), 36,
        "livers with and without masses", "CC BY 4.0",
    ),
    RoutingSource(
        "bus_bra", "ultrasound", SARAH + "BUS-BRA",
        "38cee88e6dbd190f3a926b61aad7525cb592cdc7", _flex("BUS-BRA"), 36,
        "breasts, National Cancer Institute Rio de Janeiro, four scanners", "CC BY 4.0", same_part=True,
    ),
    RoutingSource(
        "breast_video", "ultrasound", "sarah-antillia/EfficientNet-BUV-Cancer",
        "b8e906a82fd73bc6082442a338458698d632a6dd", r"projects/BUV/test/.*\.png", 40,
        "frames of videos of breasts", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "nerve", "ultrasound", OLDER + "Nerve",
        "9f238353cd20c267ed6398449c5fad21241cfce0", _slightly("Nerve"), 22,
        "necks with nerves", NOT_STATED,
    ),
    RoutingSource(
        "carotid", "ultrasound", OLDER + "Common-Carotid-Artery-UltraSound-Images",
        "f2673b119f95d6c360d0d0714144cd51ec9c4215", _slightly("CCAUS"), 20, "carotid arteries", "CC BY 4.0",
    ),
    RoutingSource(
        "ovary", "ultrasound", "sarah-antillia/EfficientDet-Augmented-Ovarian-Ultrasound-Images",
        "ffb633cda6f2f067e1afbf17ed0f4769c76ec2aa", r"projects/OTUSI/test/rotated-0--\d+\.jpg", 500,
        "ovaries, from inside, some with colour Doppler", NOT_STATED,
    ),
    # Dermoscopy
    RoutingSource(
        "ph2", "dermoscopy", "chelseaparlett/SkinCancerVariation",
        "e06866b70a49acfba5762f289ca169f056e97997",
        r"PH2Dataset/PH2 Dataset images/[^/]+/[^/]+_Dermoscopic_Image/[^/]+\.bmp", 200,
        "Hospital Pedro Hispano", "research and education only", same_part=True,
    ),
    RoutingSource(
        "ham10000", "dermoscopy", SARAH + "Skin-Cancer",
        "9ded72c4de3db705fdcf0cb7a2e6bd2674fbbe6d", _flex("Skin-Cancer"), 36,
        "Vienna and Queensland; now in the archive that training pictures are from, of other hospitals",
        "CC BY-NC 4.0", same_part=True,
    ),
    RoutingSource(
        "ham_artefacts", "dermoscopy", "thisismexp/artefact_insertion",
        "e5cf2301622f0e28561b6637d6828adcd162f19a", r"data/artefacts/src/[^/]+\.jpg", 51,
        "others of the same, chosen for rulers, ink, bubbles and hair", "CC BY-NC-SA 4.0", same_part=True,
    ),
    # X-ray
    RoutingSource(
        "nih_chest", "xray", "dinbe0527/kcr2019d1", "ab26402f327a405ac218580e90b196aebe193386",
        r"NIH1000/(train|valid|test)/.*\.png", 1000,
        "chests, National Institutes of Health, shrunk to 64 x 64", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "dental", "xray", "theatulgupta/Dental-X-Ray-Cavity-Detection",
        "124429676e73769e33793835a6940aac773e6e5a", r"data/raw/images/.*\.png", 64,
        "panoramas of teeth", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "knee_implants", "xray", "NirantK/knee-xrays", "44e1499a0c8fecfb37704aec4c1daa9d5acfbd6e",
        r"data/raw/[^/]+\.(jpg|png)", 58, "knees with implants, from the web, some photographed from a screen", "MIT",
    ),
    # Fundus
    RoutingSource(
        "idrid", "fundus", "Deeplayer/Idrid",
        "929e0736f995116e08d33322afdb3572729a59c7", r"IDRiD_\d+\.jpg", 54,
        "an eye clinic in Nanded", "CC BY 4.0; GPL-3 in the repository", same_part=True,
    ),
    RoutingSource(
        "chase", "fundus", "GreenPatterns/Retinal-VesselsAnalysis",
        "faabd1d86debbe18538960db5df1483c64260cc8",
        r"FeaturesExtractions/images/.*\.jpg", 28, "children in England", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "smdg", "fundus", SARAH + "SMDG-Glaucoma",
        "c919f89397eab351d05513d9c00bc72d89008ced", _flex("SMDG-Glaucoma"), 36,
        "a collection of sets on glaucoma", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "fives", "fundus", OLDER + "FIVES-Retinal-Vessel",
        "3066afb41c9ff1842f9ba364ec9687e7b6435c37", _slightly("FIVES"), 20, "Zhejiang University",
        "CC BY 4.0", same_part=True,
    ),
    # CT
    RoutingSource(
        "covid_ct", "ct", "GKasperek/data_c19_cropped", "2f7fa6d90ab9e1ed66fe546855ce7367d48d4df5",
        r"CT_(Non)?COVID/.*\.(png|jpg)", 746, "lungs, cut out of publications", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "head_ct", "ct", "Roiabr/Head-CT-hemorrhage-detection", "36b7fe82b5eaf326cbf4064cde22831c9093ef8d",
        r"Dataset/head_ct/.*\.png", 200, "heads, from the web", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "tcia_ct", "ct", "ChrisKalahiki/CT-Image-Analysis-using-DWT",
        "5466f73c391dcec361626d60a02834ca1393f9b8",
        r"dicom_dir/.*\.dcm", 100, "chests and abdomens of the Cancer Imaging Archive, DICOM", NOT_STATED,
        same_part=True,
    ),
    RoutingSource(
        "ircad", "ct", SARAH + "IRCAD-Digestive-Cancer-Liver",
        "1a7e5bee8c82f649365a1cf0fe879a19d19bd494", _flex("IRCAD-Digestive-Cancer"), 36,
        "livers, wide window, upside down", "CDLA-Sharing 1.0", same_part=True,
    ),
    RoutingSource(
        "sich", "ct", SARAH + "Spontaneous-Intracerebral-Hemorrhage-CT",
        "5350ace8b50e4186d030db4825cea20511c3e1bc", _flex("PHE-SICH-CT-IDS"), 19,
        "heads with haemorrhage, lying on their side", "CC BY-SA 4.0", same_part=True,
    ),
    RoutingSource(
        "lung_ct", "ct", SARAH + "Lung-CT",
        "4c2bdc4793c83d24c2206909071947dec83390a3", _flex("Lung"), 22, "chests", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "curvas", "ct",
        SARAH + "CURVAS-Abdominal-MultiOrgan",
        "70afe9edabf7f3cc24a1104fe144d71234f78b3d",
        r"projects/TensorFlowFlexUNet/CURVAS-Annotation-2/compare/images/.*\.png", 36,
        "abdomens", "CC BY-NC", same_part=True,
    ),
    # MR
    RoutingSource(
        "brain_tumour", "mr", "MohamedAliHabib/Brain-Tumor-Detection",
        "30470ae8eb2e4a523df7dc45dd5323903cb98365",
        r"(yes|no)/.*", 253, "heads, from the web", "Apache 2.0", same_part=True,
    ),
    RoutingSource(
        "brain_4class", "mr", "KomalChaudhari8/BRAIN_TUMOR_APP", "1fac2c320ad3f98cb71ce79d5d1490a953eaa1ec",
        r"Testing/[^/]+/T[^/]+\.jpg", 1311,
        "heads in three planes, of Chinese hospitals and the web; shares a few pictures with the last", NOT_STATED,
        same_part=True,
    ),
    RoutingSource(
        "prostate158", "mr", SARAH + "Prostate158-Prostate-Tumor-T2",
        "def48d0622fed46a33b65a3a2c8dec4506747914", _flex("Prostate158-T2"), 36,
        "prostates, Charité Berlin", "unknown, says the repository", same_part=True,
    ),
    RoutingSource(
        "spider", "mr", SARAH + "SPIDER-T2W-Subset",
        "697421168f751469fc44885372d9bad9f20128bb", _flex("SPIDER-T2W-Subset"), 52,
        "lumbar spines from the side, four Dutch hospitals", "CC BY 4.0",
    ),
    RoutingSource(
        "hvsmr", "mr", SARAH + "Whole-Heart-HVSMR-2.0",
        "b677e9c2986fcc6a49424021db3d46575a49f748", _flex("Whole-Heart"), 36,
        "hearts, Boston Children's Hospital", "CC BY 4.0", same_part=True,
    ),
    RoutingSource(
        "breastdm", "mr", SARAH + "BreastDM-DCE-MRI",
        "3bbce6b986b7b32e5f83e895d09de1807140c6d0", _flex("BreastDM"), 24,
        "breasts, with contrast agent", NOT_STATED, same_part=True,
    ),
    RoutingSource(
        "uwm_gi", "mr", SARAH + "UWM-GI-Tract",
        "edf1202b1a146d2b55b71841b2ae4620f22fdc04", _flex("UWM-GI-Tract"), 36,
        "abdomens at a radiotherapy machine, Wisconsin", NOT_STATED, same_part=True,
    ),
    # Foreign
    RoutingSource(
        "car_damage", "", ATLAN + "Car-Damages",
        "0809b5874863eae84c322b8b5a9a6e2f476fde1e", _flex("Car-Damages"), 36, "photographs of cars", "CC0",
    ),
    RoutingSource(
        "satellite", "", ATLAN + "Hokkaido-Iburi-Tobu-Landslide",
        "3cecc91618ce7474a404d21511f43f778567ee56", _flex("Hokkaido-Iburi-Tobu"), 36, "hills from above",
        "CC BY-NC 4.0",
    ),
    RoutingSource(
        "crack", "", ATLAN + "Crack",
        "0a8f2d0b51f51e67e21697b2f0e3ac7a0cb19632", _flex("Crack"), 24, "asphalt, close",
        "unknown, says the repository",
    ),
    RoutingSource(
        "blood", "", OLDER + "Early-Acute-Lymphoblastic-Leukemia-",
        "9e0b8de2e41e7540648445d412f4547b67012f9b", _slightly("Early-Acute-Lymphoblastic-Leukemia"), 24,
        "blood under a microscope", NOT_STATED,
    ),
    RoutingSource(
        "octa", "", SARAH + "Foveal-Avascular-Zone",
        "8af052d58cf0dccf3974cf6036cc0043585ea0e1", _flex("Foveal-Avascular-Zone"), 32,
        "vessels of the macula by optical coherence tomography, a modality not known here", "CC BY 4.0",
    ),
)  # fmt: skip
"""In the order of the page."""
