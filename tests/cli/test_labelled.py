# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Options that name labelled images, shared by `train` and `evaluate`."""

import argparse

import pytest

from monai_effsam.cli.labelled import add_data_options, check_data, named_targets, read_cases
from monai_effsam.errors import UnknownNameError, UsageError


def parse(*words):
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    return parser.parse_args(["data", *words])


def test_targets_are_numbered_in_their_order_unless_told():
    args = parse("--target", "polyp", "--target", "liver=7", "--target", "spleen")
    assert named_targets(args) == {1: "polyp", 7: "liver", 3: "spleen"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "a=0"], r"mask value is '0', expected 1\.\.255"),
        (["--target", "a=x"], "mask value is 'x'"),
        (["--target", "a=2", "--target", "b"], "mask value 2 is already 'a'"),
    ],
)
def test_mask_values_that_cannot_be_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        named_targets(parse(*words))


def test_an_unknown_modality_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'endoscopy'"):
        named_targets(parse("--modality", "endoscpy"))


def test_pairs_need_modality_and_target(tmp_path):
    args = parse()
    args.data, args.seed = tmp_path, 0
    with pytest.raises(UsageError, match=r"holds no targets\.csv, so --modality and --target are needed"):
        read_cases(args, {})


def test_a_path_at_which_nothing_is_is_named(tmp_path):
    with pytest.raises(UsageError, match="gone: no such file or folder"):
        check_data(tmp_path / "gone")
