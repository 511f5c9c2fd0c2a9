# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The shelf of images that were read, and labels that come as bare voxels."""

import numpy as np
import pytest

pytest.importorskip("monailabel")

from monai_effsam.errors import DataError
from monai_effsam.labelling.images import ImageShelf
from monai_effsam.labelling.mask_file import nrrd_bytes, nrrd_of_voxels


def test_a_folder_is_read_again_for_its_files_and_not_for_a_mark(tmp_path):
    read = []
    shelf = ImageShelf(read=lambda path, modality: read.append(path) or _Picture())
    (tmp_path / "1.dcm").write_bytes(b"a")
    for content in (b"", b"later"):
        (tmp_path / ".complete").write_bytes(content)
        shelf.open(tmp_path)
    assert len(read) == 1
    (tmp_path / "2.dcm").write_bytes(b"b")
    shelf.open(tmp_path)
    assert len(read) == 2


def test_bare_voxels_get_the_grid_of_their_image(volume):
    opened = ImageShelf().open(volume())
    mask = np.zeros(opened.grid.size, np.uint8)
    mask[3, 4, 5] = 2
    assert nrrd_of_voxels(mask.tobytes(order="F"), opened.grid) == nrrd_bytes(mask, opened.grid)
    with pytest.raises(DataError, match="label: has 3 voxels, its image 40x48x20"):
        nrrd_of_voxels(b"abc", opened.grid)


class _Picture:
    slices = np.zeros(1)
