# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A data set as one file: images, final labels, and what is known of both."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["dataset_zip"]


def dataset_zip(rows: Sequence[Mapping[str, Any]], metadata: bytes) -> Path:
    """Write a zip to the temporary folder; the caller removes it.

    Args:
        rows: `image` and `label` of each case, files or folders.
        metadata: goes in as `metadata.json`.
    """
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file, zipfile.ZipFile(file, "x") as out:
        for part, path in ((part, Path(row[part])) for row in rows for part in ("image", "label")):
            for one in sorted(path.iterdir()) if path.is_dir() else [path]:
                out.write(one, f"{part}/{one.relative_to(path.parent)}")
        out.writestr("metadata.json", metadata)
    return Path(file.name)
