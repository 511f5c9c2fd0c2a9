# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a store knows of its images and labels: immutable, so that one thread reads while another makes the next.

The JSON form is that of MONAI Label's `datastore_v2.json`, so that folders of its own apps open here and the reverse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from monai_effsam.data.io.sniff import ENDINGS, stem
from monai_effsam.errors import DataError, UsageError

__all__ = [
    "FINAL",
    "ORIGINAL",
    "FolderState",
    "StoredFile",
    "StoredImage",
    "check_ending",
    "check_id",
    "check_tag",
    "is_id",
    "is_tag",
]

FINAL, ORIGINAL = "final", "original"
"""Tags of labels: a person's, and a model's that a person may mend."""

_ID = re.compile(r"\w[\w .()+=@,#~&'-]{0,199}")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def is_id(name: str) -> bool:
    """Whether a name can be an id: one file name without separators, control characters or a leading dot."""
    return _ID.fullmatch(name) is not None and not name.endswith(" ")


def is_tag(name: str) -> bool:
    """Whether a name can be the tag of a label: a word in small letters."""
    return _TAG.fullmatch(name) is not None


def check_id(name: str) -> str:
    """The id itself, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not is_id(name):
        raise UsageError(
            f"image id {name[:60]!r}: is no file name, expected letters, digits and some of ' .()+=@,#~&-_', at most "
            "200. Rename the image."
        )
    return name


def check_tag(tag: str) -> str:
    """The tag of a label itself, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    tag = str(getattr(tag, "value", tag))  # MONAI Label passes members of an enumeration
    if not is_tag(tag):
        raise UsageError(
            f"label tag {tag[:60]!r}: is no tag, expected a word such as final or original. Use one."
        )
    return tag


def check_ending(path: Path) -> str:
    """The ending of a file in small letters, if it is one that is read here.

    Raises:
        UsageError: it is none.
    """
    ending = path.name[len(stem(path)) :].lower()
    if not ending:
        raise UsageError(
            f"{path.name}: has an unknown ending, expected {' '.join(ENDINGS)}. Convert the file."
        )
    return ending


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store; its name is the image's id and `ext`.

    Args:
        ext: ending, such as `.nii.gz`.
        info: what is known of it; never changed in place.
    """

    ext: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image and its labels.

    Args:
        image: its file.
        labels: tag -> label.
    """

    image: StoredFile
    labels: Mapping[str, StoredFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderState:
    """Everything that a store remembers.

    Args:
        name: of the data set.
        description: of the data set.
        images_dir: folder of the images below the store's.
        labels_dir: folder of the labels below the store's.
        objects: id -> image.
    """

    name: str = "new-dataset"
    description: str = "New Dataset"
    images_dir: str = "."
    labels_dir: str = "labels"
    objects: Mapping[str, StoredImage] = field(default_factory=dict)

    def with_image(self, image_id: str, image: StoredImage | None) -> Self:
        """The state with one image put in or, for None, left out."""
        objects = {**self.objects, **({image_id: image} if image else {})}
        if image is None:
            objects.pop(image_id, None)
        return replace(self, objects=objects)

    def with_label(self, image_id: str, tag: str, label: StoredFile | None) -> Self:
        """The state with one label of an image put in or, for None, left out."""
        one = self.objects[image_id]
        labels = {t: stored for t, stored in one.labels.items() if t != tag}
        if label is not None:
            labels[tag] = label
        return self.with_image(image_id, StoredImage(one.image, labels))

    def to_json(self) -> dict[str, Any]:
        """Plain values, the form of `datastore_v2.json`."""
        objects = {
            image_id: {
                "image": _plain(one.image),
                "labels": {tag: _plain(label) for tag, label in one.labels.items()},
            }
            for image_id, one in self.objects.items()
        }
        return {**{k: getattr(self, k) for k in _FIELDS}, "objects": objects}

    def to_bytes(self) -> bytes:
        """`to_json` as a file's content."""
        return json.dumps(self.to_json(), indent=1, default=str).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: object) -> Self:
        """A state from a file's content.

        Raises:
            DataError: it is no such file.
        """
        try:
            read = json.loads(content)
            objects = {
                str(image_id): StoredImage(
                    _stored(one["image"]), {tag: _stored(label) for tag, label in one["labels"].items()}
                )
                for image_id, one in read["objects"].items()
            }
            return cls(**{k: str(read[k]) for k in _FIELDS if k in read}, objects=objects)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: is no readable state of a store ({error}), expected MONAI Label's JSON. Restore it."
            ) from error


_FIELDS = ("name", "description", "images_dir", "labels_dir")


def _plain(file: StoredFile) -> dict[str, Any]:
    return {"ext": file.ext, "info": dict(file.info)}


def _stored(item: Mapping[str, Any]) -> StoredFile:
    return StoredFile(str(item.get("ext", "")), dict(item.get("info") or {}))
