# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What the tests of the holes look at: files that came to be, and refusals."""

from pathlib import Path


def tree(folder: Path) -> set[str]:
    """Every path below a folder, but for what belongs to the server."""
    return {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if "state" not in p.relative_to(folder).parts[:1]
    }


def one_line(reply):
    """A refusal is JSON with one line and no path of this machine."""
    detail = reply.json()["detail"]
    assert set(reply.json()) == {"detail"}
    assert "\n" not in detail
    assert "/tmp" not in detail
    assert "Traceback" not in detail
    return detail


def image_file(name="x.nii.gz", content=b"content"):
    return {"file": (name, content)}
