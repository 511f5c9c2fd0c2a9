# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What viewers get from the tasks: values, names, grids of pictures, empty answers, refusals."""

import json
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel")
sitk = pytest.importorskip("SimpleITK")

from monai_effsam.errors import DataError, EffsamError, UnknownNameError, UsageError  # noqa: E402
from monai_effsam.inference import Segmenter  # noqa: E402
from monai_effsam.labelling.requests import InferenceRequest  # noqa: E402
from monai_effsam.labelling.service import LabellingService  # noqa: E402
from monai_effsam.labelling.tasks import inference_tasks  # noqa: E402
from tests.labelling.service.conftest import BrightPiece, GreyBands, small_service  # noqa: E402

WIDTH, HEIGHT = 90, 60


@pytest.fixture
def tasks(service):
    return inference_tasks(service)


@pytest.fixture
def picture(tmp_path):
    """A function: ending -> picture of WIDTH x HEIGHT with a bright block at columns 10-30, rows 40-50."""

    def write(ending: str = ".png", grey: int = 255) -> Path:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[40:50, 10:30] = grey
        cv2.imwrite(str(tmp_path / f"p{ending}"), pixels)
        return tmp_path / f"p{ending}"

    return write


def stored(path: str) -> np.ndarray:
    """[i, j, k] as stored."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(path))
    return array.T if array.ndim == 3 else array.T[..., None]


def test_info_declares_the_panels_of_slicer_and_the_tabs_of_ohif(tasks):
    told = {name: task.info() for name, task in tasks.items()}
    assert {name: (t["type"], t["dimension"]) for name, t in told.items()} == {
        "automatic": ("segmentation", 3),
        "prompted_2d": ("deepgrow", 2),
        "prompted_3d": ("deepgrow", 3),
        "class_prompt": ("segmentation", 3),
    }
    assert told["automatic"]["labels"] == {"dim": 1, "middle": 2, "bright": 3}
    assert told["class_prompt"]["config"] == {"target": ["dim", "middle", "bright"]}
    assert told["automatic"]["modalities"] == {"CT": ["dim", "middle", "bright"]}
    assert next(iter(tasks)) == "automatic"  # what Slicer runs by itself on a new sample
    json.dumps(told)


@pytest.fixture
def two_of_three(tmp_path):
    """A NIfTI that shows the first and the last of the three targets."""
    values = np.full((32, 32, 4), -160, np.int16)
    values[4:12, 4:12] = -50
    values[20:28, 20:28] = 220
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 5, 1])), tmp_path / "two.nii.gz")
    return tmp_path / "two.nii.gz"


def test_values_for_slicer_are_those_of_the_classes_found_without_a_gap(tasks, two_of_three):
    mask, told = tasks["class_prompt"]({"image": str(two_of_three), "target": ["dim", "bright"]})
    assert told["label_names"] == {"dim": 1, "bright": 2}
    assert stored(mask)[6, 6, 1] == 1
    assert stored(mask)[24, 24, 1] == 2
    assert set(np.unique(stored(mask))) == {0, 1, 2}


def test_values_for_ohif_are_those_that_info_told(tasks, two_of_three):
    request = {"image": str(two_of_three), "label_prompt": [1, 3], "restore_label_idx": False}
    mask, told = tasks["automatic"](request)
    assert told["label_names"] == {"dim": 1, "bright": 3}
    assert set(np.unique(stored(mask))) == {0, 1, 3}


def test_one_class_by_name_and_by_value(tasks, two_of_three):
    for more in ({"target": "bright"}, {"target": ["bright"]}, {"label_prompt": [3]}):
        mask, told = tasks["class_prompt"]({"image": str(two_of_three), **more})
        assert told["label_names"] == {"bright": 1}
        assert stored(mask)[6, 6, 1] == 0
    with pytest.raises(UsageError, match="Choose one"):
        tasks["class_prompt"]({"image": str(two_of_three)})


def test_a_project_labels_only_the_targets_that_it_names(two_of_three):
    tasks = inference_tasks(small_service(targets=["bright", "middle"]))
    assert tasks["automatic"].info()["labels"] == {"middle": 1, "bright": 2}
    assert tasks["automatic"].info()["modalities"]["CT"] == ["middle", "bright"]
    mask, told = tasks["automatic"]({"image": str(two_of_three)})
    assert told["label_names"] == {"bright": 1}
    assert stored(mask)[6, 6, 1] == 0
    mask, told = tasks["class_prompt"]({"image": str(two_of_three), "target": "dim"})
    assert told["label_names"] == {"dim": 1}  # who asks for it by name gets it
    with pytest.raises(UnknownNameError, match="'grey'"):
        small_service(targets=["grey"])


def test_every_reply_tells_quality_and_where_the_time_went(tasks, two_of_three):
    _, told = tasks["automatic"]({"image": str(two_of_three)})
    assert told["quality"] == {"dim": 0.75, "middle": 0.75, "bright": 0.75}
    latencies = told["latencies"]
    assert {"pre", "infer", "post", "write", "total", "encode", "decode"} <= latencies.keys()
    assert latencies["total"] >= latencies["pre"] + latencies["infer"] + latencies["post"] - 0.001
    json.dumps(told)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("extension", [None, ".nrrd", ".nii.gz", ".nii"])
def test_masks_of_pictures_have_the_axes_of_the_picture_and_no_lossy_format(
    tasks, picture, ending, extension
):
    path = picture(ending)
    request = {"image": str(path), "foreground": [[20, 45, 0]], "result_extension": extension}
    mask, _ = tasks["prompted_2d"](request)
    assert mask.endswith(extension or ".nrrd")
    array = stored(mask)
    assert array.shape == (WIDTH, HEIGHT, 1)
    assert set(np.unique(array)) == {0, 1}
    rows_and_columns = np.argwhere(array[..., 0])
    np.testing.assert_allclose(rows_and_columns.mean(axis=0), (19.5, 44.5), atol=0.6)


def test_a_turned_photograph_is_answered_on_its_stored_pixels(tasks, tmp_path):
    from PIL import Image

    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[40:50, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    mask, _ = tasks["prompted_2d"]({"image": str(tmp_path / "turned.png"), "foreground": [[20, 45, 0]]})
    np.testing.assert_allclose(np.argwhere(stored(mask)[..., 0]).mean(axis=0), (19.5, 44.5), atol=0.6)


def test_colour_that_simpleitk_wrote_as_vectors_is_read(tasks, tmp_path):
    pixels = np.zeros((WIDTH, HEIGHT, 1, 1, 3), np.uint8)
    pixels[10:30, 40:50] = 255
    vectors = nibabel.Nifti1Image(pixels, np.diag([-0.5, -0.5, 1, 1]))
    vectors.header.set_intent("vector")
    nibabel.save(vectors, tmp_path / "us.nii.gz")
    for extension in (".nrrd", ".nii.gz"):
        request = {"image": str(tmp_path / "us.nii.gz"), "foreground": [[20, 45, 0]], "slice": 0}
        mask, _ = tasks["prompted_2d"]({**request, "result_extension": extension})
        found, image = sitk.ReadImage(mask), sitk.ReadImage(str(tmp_path / "us.nii.gz"))
        assert found.GetNumberOfComponentsPerPixel() == 1
        assert found.GetSize()[:2] == image.GetSize()[:2] == (WIDTH, HEIGHT)  # ITK drops a last axis of one
        np.testing.assert_allclose(found.GetSpacing()[:2], image.GetSpacing()[:2])
        np.testing.assert_allclose(np.argwhere(stored(mask)[..., 0]).mean(axis=0), (19.5, 44.5), atol=0.6)


def test_slice_0_is_a_slice(tasks, volume):
    points = [[38, 46, 0], [13, 30, 8]]  # Slicer sends points of other slices with slice 0
    request = {"image": str(volume()), "foreground": points, "slice": 0, "label": "x"}
    mask, _ = tasks["prompted_2d"](request)
    assert np.flatnonzero(stored(mask).any(axis=(0, 1))).tolist() == [0]
    assert stored(mask)[38, 46, 0] == 1


@pytest.mark.parametrize("name", ["prompted_2d", "prompted_3d"])
@pytest.mark.parametrize(
    "clicks",
    [{}, {"background": [[13, 30, 8]]}, {"foreground": [], "background": [], "roi": []},
     {"foreground": [[2, 2, 8]], "slice": 8}],
)  # fmt: skip
def test_an_empty_answer_is_an_empty_mask_that_clears(tasks, volume, name, clicks):
    path = volume()
    mask, told = tasks[name]({"image": str(path), "label": "x", **clicks})
    assert sitk.ReadImage(mask).GetSize() == sitk.ReadImage(str(path)).GetSize()
    assert not stored(mask).any()
    assert told["label_names"] == {}


def test_a_click_outside_takes_a_piece_away(tasks, picture):
    path = picture()
    request = {"image": str(path), "roi": [0, 89, 0, 59, 0, 0]}
    assert stored(tasks["prompted_2d"](request)[0]).any()
    assert not stored(tasks["prompted_2d"]({**request, "background": [[20, 45, 0]]})[0]).any()


def test_rounding_past_the_border_is_pulled_in(tasks, picture):
    mask, _ = tasks["prompted_2d"]({"image": str(picture()), "foreground": [[20, 45, 0], [90, -1, 0]]})
    assert stored(mask)[20, 45, 0] == 1


def test_a_region_is_sorted_axis_by_axis_and_cut_to_the_image(tasks, picture):
    path = picture()
    asked = InferenceRequest.of({"image": str(path), "roi": [95, -5, 70, 30, 0, 0]})
    assert asked.clicks.roi == (-5, 95, 30, 70, 0, 0)
    assert (
        stored(tasks["prompted_2d"]({"image": str(path), "roi": [95, -5, 70, 30, 0, 0]})[0])[20, 45, 0] == 1
    )


@pytest.mark.parametrize("name", ["prompted_2d", "prompted_3d"])
@pytest.mark.parametrize(
    ("clicks", "message"),
    [
        ({"foreground": [[500, 2, 8]]}, r"foreground: point \[500, 2, 8\] is outside"),
        ({"foreground": [[5, 2, 8]], "background": [[5, -9, 8]]}, "background: point"),
        ({"roi": [90, 99, 0, 9, 0, 9]}, "does not touch"),
        ({"foreground": [[1]]}, "expected points"),
        ({"foreground": "all"}, "expected a list"),
        ({"foreground": [[1, float("nan"), 2]]}, "expected voxel indices"),
        ({"foreground": [[1, True, 2]]}, "expected numbers"),
        ({"foreground": [[1, 10**400, 2]]}, "expected voxel indices"),
        ({"roi": [1, 2, 3]}, "expected six"),
        ({"slice": "x"}, "expected numbers"),
        ({"label": "a\nb"}, "expected a short text"),
        ({"result_extension": ".jpg"}, "expected one of .nrrd"),
        ({"result_dtype": "float32"}, "expected uint8"),
        ({"label_prompt": [99]}, "expected values of dim=1"),
        ({"target": [1]}, "name of a target"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(tasks, volume, name, clicks, message):
    with pytest.raises(UsageError, match=message) as caught:
        tasks[name]({"image": str(volume()), **clicks})
    assert "\n" not in str(caught.value)


def test_a_slice_far_outside_is_refused(tasks, volume):
    with pytest.raises(UsageError, match="slice: is 99"):
        tasks["prompted_2d"]({"image": str(volume()), "foreground": [[1, 1, 99]], "slice": 99})


def test_images_that_are_not_there_or_none_are_refused(tasks, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    for image in (tmp_path / "none.png", tmp_path / "x.png"):
        with pytest.raises(DataError):
            tasks["automatic"]({"image": str(image)})
    with pytest.raises(UsageError, match="expected the path"):
        tasks["automatic"]({})


def test_an_unknown_modality_or_target_is_refused(tasks, picture):
    for more in ({"target": "heart"},):
        with pytest.raises(EffsamError, match="heart"):
            tasks["automatic"]({"image": str(picture()), **more})


@pytest.fixture
def looking(monkeypatch, bright_router):
    """The tasks of a service whose modality nobody told: dark pictures look like CT, grey ones like nothing."""
    monkeypatch.setattr("monai_effsam.inference.modality.shipped_router", lambda: bright_router)
    service = LabellingService(Segmenter(GreyBands()), Segmenter(BrightPiece()))
    yield inference_tasks(service)
    service.close()


def test_a_modality_that_nobody_told_is_what_the_picture_looks_like(looking, tasks, picture):
    path = {"image": str(picture(".bmp", grey=60))}
    told = looking["automatic"](path)[1]
    assert (told["modality"], told["modality_source"]) == ("ct", "router")
    told = tasks["automatic"](path)[1]
    assert (told["modality"], told["modality_source"]) == ("ct", "caller")


def test_a_picture_that_looks_like_none_needs_a_modality(looking, tmp_path):
    cv2.imwrite(str(tmp_path / "dull.png"), np.full((30, 30), 128, np.uint8))
    with pytest.raises(UsageError, match=r"looks like none.*Start the server with --modality"):
        looking["automatic"]({"image": str(tmp_path / "dull.png")})


def test_a_changed_file_is_read_again(tasks, picture):
    path = picture(".bmp", grey=255)
    request = {"image": str(path), "foreground": [[20, 45, 0]]}
    assert stored(tasks["prompted_2d"](request)[0]).any()
    picture(".bmp", grey=60)  # of the same size in bytes
    assert not stored(tasks["prompted_2d"](request)[0]).any()
