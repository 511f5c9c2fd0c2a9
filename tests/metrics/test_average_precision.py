# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Average precision is COCO's: by hand, by its known answers, and by pycocotools on random masks."""

import contextlib
import io

import numpy as np
import pytest

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import FoundObjects, average_precision, match_masks

IOUS = (0.96, 0.72, 0.40)


def one_each(scores, overlaps=IOUS, name=""):
    """A picture an object, one mask in it."""
    return [FoundObjects(np.array([s]), np.array([[o]]), name) for s, o in zip(scores, overlaps, strict=True)]


def test_the_order_of_the_scores_counts_as_worked_out_by_hand():
    good = average_precision(one_each((0.9, 0.8, 0.7)))
    assert (good.mean, good.at_50, good.at_75) == pytest.approx((0.5, 67 / 101, 34 / 101), abs=1e-4)
    poor = average_precision(one_each((0.7, 0.8, 0.9)))
    assert (poor.mean, poor.at_50, poor.at_75) == pytest.approx((0.2772, 0.4422, 0.1122), abs=1e-4)


def test_classes_count_alike_and_those_without_objects_not_at_all():
    many = one_each((0.9,) * 9, (1.0,) * 9, "polyp") + one_each((0.5,), (0.1,), "nodule")
    nothing = FoundObjects(np.array([0.3]), np.zeros((1, 0)), "cyst")
    found = average_precision([*many, nothing])
    assert found.mean == pytest.approx(0.5)
    assert found.classes == pytest.approx({"polyp": 1.0, "nodule": 0.0})
    assert np.isnan(average_precision([nothing]).mean)


def test_what_is_found_in_an_empty_picture_costs_precision():
    objects = one_each((0.5,), (1.0,))
    assert average_precision(objects).mean == pytest.approx(1)
    ghost = FoundObjects(np.array([0.9]), np.zeros((1, 0)))
    assert average_precision([*objects, ghost]).mean == pytest.approx(0.5)


def test_the_second_mask_of_an_object_is_wrong():
    label = np.zeros((4, 4), bool)
    label[1:3, 1:3] = True
    twice = match_masks([label, label], [0.9, 0.8], [label])
    other = FoundObjects(np.array([0.1]), np.array([[1.0]]))
    assert average_precision([twice, other]).mean == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)
    assert average_precision([twice, other], most=1).mean == pytest.approx(1)


def test_what_does_not_fit_together_is_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ShapeError, match="expected one shape and a score a mask"):
        match_masks([mask], [0.1], [mask[:2]])
    with pytest.raises(ShapeError, match="expected one shape and a score a mask"):
        match_masks([mask], [0.1, 0.2], [mask])
    with pytest.raises(ShapeError, match="Make them with match_masks"):
        average_precision([FoundObjects(np.zeros(2), np.zeros((1, 1)))])


def some_discs(random, shape, count):
    """Masks that overlap, some of them empty."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rows = random.rand(count, 3) * [*shape, min(shape) / 3]
    return [(y - a) ** 2 + (x - b) ** 2 < r**2 for a, b, r in rows]


def some_pictures(random, classes):
    """(class, masks, scores, labels) of a few pictures of all sizes; a mask is often near a label."""
    made = []
    for _ in range(random.randint(1, 7)):
        shape = tuple(random.randint(5, 40, 2))
        for name in range(1, classes + 1):
            labels = [m for m in some_discs(random, shape, random.randint(0, 5)) if m.any()]
            masks = some_discs(random, shape, random.randint(0, 4))
            masks += [np.roll(m, random.randint(0, 3), axis=1) for m in labels if random.rand() < 0.8]
            scores = random.randint(0, 9, len(masks)) / 8  # many are equal
            made.append((len(made) // classes, name, masks, scores, labels))
    return made


def of_pycocotools(pictures, classes):
    """mAP, AP50, AP75 of the reference."""
    coco, evaluate, code = (
        pytest.importorskip(f"pycocotools.{name}", reason="pycocotools is missing: install the extra dev")
        for name in ("coco", "cocoeval", "mask")
    )

    def encoded(mask):
        return code.encode(np.asfortranarray(mask.astype(np.uint8)))

    truth, answers = coco.COCO(), []
    truth.dataset = {
        "images": [{"id": n, "height": 1, "width": 1} for n in {n for n, *_ in pictures}],  # sizes go unused
        "categories": [{"id": name} for name in range(1, classes + 1)],
        "annotations": [
            {"image_id": n, "category_id": name, "segmentation": encoded(m), "area": m.sum(), "iscrowd": 0}
            for n, name, _, _, labels in pictures
            for m in labels
        ],
    }
    for number, entry in enumerate(truth.dataset["annotations"], 1):
        entry["id"] = number
    for n, name, masks, scores, _ in pictures:
        answers += [
            {"image_id": n, "category_id": name, "segmentation": encoded(m), "score": s, "area": m.sum()}
            for m, s in zip(masks, scores, strict=True)
        ]
    for number, entry in enumerate(answers, 1):
        entry |= {"id": number, "iscrowd": 0}
    found = coco.COCO()
    found.dataset = truth.dataset | {"annotations": answers}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        judge = evaluate.COCOeval(truth, found, "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[:3]


@pytest.mark.parametrize("classes", [1, 3])
def test_it_is_that_of_pycocotools(classes):
    random, compared = np.random.RandomState(classes), 0
    for _ in range(50):
        pictures = some_pictures(random, classes)
        ours = average_precision([match_masks(m, s, g, str(name)) for _, name, m, s, g in pictures])
        if not ours.classes:
            continue
        theirs = of_pycocotools(pictures, classes)
        assert (ours.mean, ours.at_50, ours.at_75) == pytest.approx(theirs, abs=1e-9)
        compared += 1
    assert compared > 40
