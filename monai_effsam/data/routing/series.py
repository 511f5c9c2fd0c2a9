# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the tables share: series of repositories that keep a few pictures of many public sets each, laid out alike."""

from __future__ import annotations

__all__ = ["ALONE", "ATLAN", "NOT_STATED", "OLDER", "SARAH", "TILED", "flex", "slightly"]

SARAH = "sarah-antillia/TensorFlow-FlexUNet-Image-Segmentation-"
OLDER = "sarah-antillia/Tensorflow-Image-Segmentation-"
ATLAN = "atlan-antillia/TensorFlow-FlexUNet-Image-Segmentation-"
TILED = "atlan-antillia/TensorFlow-FlexUNet-Tiled-Image-Segmentation-"
"""Beginnings of their names."""

NOT_STATED = "not stated"

ALONE = "()"
"""One group: the paths do not tell patients apart, so nothing of the source is held out."""


def flex(project: str, names: str = "[^/]+") -> str:
    """Paths in a repository of the newer series.

    Args:
        project: folder inside.
        names: pattern of the files, without their ending.
    """
    return rf"projects/TensorFlowFlexUNet/{project}/mini_test/images/{names}\.(png|jpg)"


def slightly(project: str, names: str = "[^/]+") -> str:
    """Paths in a repository of the older series.

    Args:
        project: folder inside.
        names: pattern of the files, without their ending.
    """
    return rf"projects/TensorflowSlightlyFlexibleUNet/{project}/mini_test/images/{names}\.(png|jpg)"
