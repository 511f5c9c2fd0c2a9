# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`FolderStore`: a folder of images for MONAI Label, of every format that is read here, safe against kills and crowds.

folder/a.png  b.nii.gz ...        images; the id is the name without its ending
folder/labels/final/a.nii.gz      labels by tag: `final` a person's, `original` a model's
folder/datastore_v2.json  .lock   the state, in MONAI Label's own form
"""

from __future__ import annotations

import copy
import io
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from monai_effsam.data.io.sniff import stem
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.store.dataset_zip import dataset_zip
from monai_effsam.labelling.store.folder_files import FolderFiles
from monai_effsam.labelling.store.state import (
    FINAL,
    FolderState,
    StoredFile,
    StoredImage,
    check_ending,
    check_id,
    check_tag,
)

__all__ = ["FolderStore"]


class FolderStore(Datastore):
    """Images and labels of a folder, for several threads and processes; what others change is seen at the next call.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self._files = FolderFiles(Path(folder).resolve())

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._files.folder

    def name(self) -> str:
        """Of the data set."""
        return self._files.state().name

    def set_name(self, name: str) -> None:
        """Change the name."""
        self._files.change(lambda state: replace(state, name=name))

    def description(self) -> str:
        """Of the data set."""
        return self._files.state().description

    def set_description(self, description: str) -> None:
        """Change the description."""
        self._files.change(lambda state: replace(state, description=description))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Image, label and what is known of both, for each image with a final label."""
        rows = []
        for image_id, one in self._files.state().objects.items():
            if (label := one.labels.get(FINAL)) is not None:
                paths = self.get_image_uri(image_id), self.get_label_uri(image_id, FINAL)
                image, mask = (p if full_path else Path(p).name for p in paths)
                info = {"image": dict(one.image.info), "label": dict(label.info)}
                rows.append({"image": image, "label": mask, "meta": info})
        return rows

    def list_images(self) -> list[str]:
        """Ids of all images."""
        return list(self._files.state().objects)

    def get_labeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Ids of the images with a label of that tag, final by default."""
        tag = check_tag(label_tag or FINAL)
        return [k for k, one in self._files.state().objects.items() if tag in one.labels]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Ids of the images without a label of that tag, final by default."""
        tag = check_tag(label_tag or FINAL)
        return [k for k, one in self._files.state().objects.items() if tag not in one.labels]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tag -> label id, of one image."""
        one = self._files.state().objects.get(image_id)
        return dict.fromkeys(one.labels, image_id) if one else {}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Label id of an image and tag, empty without one."""
        return self.get_labels_by_image_id(image_id).get(check_tag(tag), "")

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image, empty for an unknown one."""
        one = self._files.state().objects.get(image_id)
        return str(self._files.image_path(image_id, one.image).resolve()) if one else ""

    def stamp(self, image_id: str) -> str:
        """What changes with an image's content; empty for an unknown one."""
        path = self.get_image_uri(image_id)
        with suppress(OSError):
            status = Path(path).stat()
            return f"{status.st_size}-{status.st_mtime_ns}" if path else ""
        return ""

    def get_image(self, image_id: str, params: Any = None) -> io.BytesIO | None:
        """Content of an image, None for an unknown one."""
        return io.BytesIO(Path(path).read_bytes()) if (path := self.get_image_uri(image_id)) else None

    def image_facts(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, without a look at it; empty for an unknown one."""
        one = self._files.state().objects.get(image_id)
        return copy.deepcopy(dict(one.image.info)) if one else {}

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, its path among it; empty for an unknown one."""
        info = self.image_facts(image_id)
        return {**info, "path": self.get_image_uri(image_id)} if info else {}

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label, empty for an unknown one."""
        tag = check_tag(label_tag)
        label = self._label(label_id, tag)
        return str(self._files.label_path(label_id, tag, label).resolve()) if label else ""

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> io.BytesIO | None:
        """Content of a label, None for an unknown one."""
        return (
            io.BytesIO(Path(path).read_bytes()) if (path := self.get_label_uri(label_id, label_tag)) else None
        )

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label, `label_info` (names of its values) among it; empty for an unknown one."""
        label = self._label(label_id, check_tag(label_tag))
        return copy.deepcopy(dict(label.info)) if label else {}

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, Any] | None) -> str:
        """Copy an image in, and give its id; one of the same id is replaced and keeps its labels.

        Args:
            image_id: None or empty for the file's name without its ending.
            image_filename: path of the file; its ending is kept.
            image_info: what is known of it.

        Raises:
            UsageError: the id is no file name, or the ending is none that is read here.
            DataError: the system refuses to write.
        """
        path = Path(image_filename)
        image_id = check_id(image_id or stem(path))
        ext = check_ending(path)
        # of two files of one name the second goes by all of it
        if image_id + ext in self._files.state().objects:
            raise UsageError(f"image id '{image_id}': {image_id + ext} is another image. Choose another id.")
        info = {**(image_info or {}), "ts": int(time.time()), "name": image_id + ext}
        self._files.put_image(image_id, path, StoredFile(ext, info))
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels.

        Raises:
            ImageNotFoundException: there is no such image.
        """
        one = self._image(image_id)
        for tag in one.labels:
            self.remove_label(image_id, tag)
        path = self._files.image_path(image_id, one.image)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._files.change(lambda state: state.with_image(image_id, None))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any] | None
    ) -> str:
        """Copy a label in; on the disk, with its info, when this returns, and never there in half.

        Args:
            image_id: of its image.
            label_filename: path of the file; its ending is kept.
            label_tag: `final`, `original` or another word.
            label_info: what is known of it; `label_info` holds name and value of each structure.

        Returns:
            The label's id, which is the image's.

        Raises:
            ImageNotFoundException: there is no such image.
            UsageError: the tag is no word, or the ending is none that is read here.
            DataError: the system refuses to write.
        """
        tag, path = check_tag(label_tag), Path(label_filename)
        self._image(image_id)
        ext = check_ending(path)
        info = {**(label_info or {}), "ts": int(time.time()), "name": image_id + ext}
        self._files.put_label(image_id, tag, path, StoredFile(ext, info))
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; one that does not exist is no error."""
        tag = check_tag(label_tag)
        if label := self._label(label_id, tag):
            self._files.label_path(label_id, tag, label).unlink(missing_ok=True)
            self._files.change(lambda s: s.with_label(label_id, tag, None) if label_id in s.objects else s)

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of an image.

        Raises:
            ImageNotFoundException: there is no such image.
        """
        self._image(image_id)
        self.update_images_info({image_id: info})

    def update_images_info(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """Add to what is known of many images in one write; images that are gone are passed over.

        Args:
            infos: id -> what is new.
        """

        def change(state: FolderState) -> FolderState:
            objects = dict(state.objects)
            for image_id in infos.keys() & objects.keys():
                one = objects[image_id]
                info = {**one.image.info, **copy.deepcopy(dict(infos[image_id]))}
                objects[image_id] = StoredImage(StoredFile(one.image.ext, info), one.labels)
            return replace(state, objects=objects)

        self._files.change(change)

    def update_label_info(self, label_id: str, label_tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of a label.

        Raises:
            LabelNotFoundException: there is no such label.
        """
        tag = check_tag(label_tag)
        if self._label(label_id, tag) is None:
            raise LabelNotFoundException(f"Label: {label_id} Tag: {tag} not found")

        def change(state: FolderState) -> FolderState:
            old = state.objects[label_id].labels[tag]
            merged = {**old.info, **copy.deepcopy(dict(info))}
            return state.with_label(label_id, tag, StoredFile(old.ext, merged))

        self._files.change(change)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A zip of images with final labels and the state; the caller removes it.

        Raises:
            DataError: there is no final label.
        """
        rows = self.datalist()[: limit_cases or None]
        if not rows:
            raise DataError(f"{self.folder}: holds no final label, expected at least one. Submit one first.")
        return str(dataset_zip(rows, self._files.state().to_bytes()))

    def refresh(self) -> None:
        """Nothing: every call looks at the files."""

    def status(self) -> dict[str, Any]:
        """How many images, how many with a final label, how many labels of each tag."""
        objects = self._files.state().objects.values()
        tags = dict(Counter(tag for one in objects for tag in one.labels))
        return {"total": len(objects), "completed": tags.get(FINAL, 0), "label_tags": tags}

    def json(self) -> dict[str, Any]:
        """Everything that is known, in MONAI Label's form."""
        return self._files.state().to_json()

    def _image(self, image_id: str) -> StoredImage:
        one = self._files.state().objects.get(image_id)
        if one is None:
            raise ImageNotFoundException(f"Image {image_id} not found")
        return one

    def _label(self, label_id: str, tag: str) -> StoredFile | None:
        one = self._files.state().objects.get(label_id)
        return one.labels.get(tag) if one else None
