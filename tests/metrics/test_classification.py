# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Accuracy, balanced accuracy and area under the ROC of a classifier."""

import numpy as np
import pytest

from monai_effsam.errors import ShapeError
from monai_effsam.metrics import class_scores

TARGET = np.array([0, 0, 0, 0, 1, 1])


def test_scores_by_hand():
    first = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.2])
    found = class_scores(np.stack([first, 1 - first], 1), TARGET)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced == pytest.approx((3 / 4 + 1 / 2) / 2)
    # of the 8 pairs of a first and a second item, in 6 the first has the higher score
    assert found.auc == pytest.approx(6 / 8)


def test_equal_scores_say_nothing():
    assert class_scores(np.full((6, 2), 0.5), TARGET).auc == 0.5


def test_a_class_without_items_is_left_out():
    scores = np.eye(3)[TARGET]
    assert class_scores(scores, TARGET) == (1.0, 1.0, 1.0)


def test_one_class_cannot_be_told_apart():
    with pytest.raises(ShapeError, match="of 1 classes"):
        class_scores(np.eye(2), np.zeros(2, int))
