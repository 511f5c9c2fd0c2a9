# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`DicomWebStore`: the series of a PACS, of any modality; labels go back as DICOM Segmentations.

cache/UID.dicom/            the files of a series, fetched when they are first wanted; emptied when space runs out
cache/labels/final/         labels as they were submitted, or as they were read from segmentations of the PACS
cache/.segs/                segmentations that were made here; kept until the PACS has them
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_effsam.data.io import Image, read_image, write_mask
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.durable import PART, move_durably, write_durably
from monai_effsam.labelling.store.archive import DicomArchive
from monai_effsam.labelling.store.folder import FolderStore
from monai_effsam.labelling.store.folder_files import SERIES
from monai_effsam.labelling.store.seg_reading import made_at, read_seg
from monai_effsam.labelling.store.seg_writing import label_to_seg
from monai_effsam.labelling.store.state import FINAL
from monai_effsam.targets import TARGETS, Target

__all__ = ["DicomWebStore"]

log = logging.getLogger(__name__)

_UID = re.compile(r"[0-9.]{1,64}")
_NO_IMAGES = {"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC"}
_COMPLETE = ".complete"
_RECENT = 120.0  # a series that was asked for so lately may be being read [s]


class DicomWebStore(FolderStore):
    """Series of a PACS as images; ids are their SeriesInstanceUIDs.

    Args:
        client: of `dicomweb_client`.
        cache: folder of this PACS alone.
        search_filter: QIDO attributes that a series must have; none for every series of images.
        cache_bytes: files of series take at most so much.
        listing_seconds: that a list of the PACS is believed.
        fetch_all: let the background fetch every series, to know which one is worth labelling.
        targets: names and codes of segments.
    """

    def __init__(
        self,
        client: Any,
        cache: Path | str,
        *,
        search_filter: Mapping[str, Any] | None = None,
        cache_bytes: int = 8 << 30,
        listing_seconds: float = 30.0,
        fetch_all: bool = False,
        targets: Sequence[Target] = TARGETS,
    ) -> None:
        super().__init__(cache)
        self.archive, self.search_filter = DicomArchive(client), dict(search_filter or {})
        self.cache_bytes, self.listing_seconds, self.targets = cache_bytes, listing_seconds, tuple(targets)
        self.fetch_all = fetch_all
        self._lock, self._fetching = threading.RLock(), dict[str, threading.Lock]()
        self._sending = threading.Lock()
        self._listed: tuple[float, tuple[str, ...]] = (-1e9, ())
        self._referred: dict[str, tuple[str, str]] = {}  # segmentation -> series, when; they never change

    def name(self) -> str:
        """Address of the PACS."""
        return self.archive.name

    def list_images(self) -> list[str]:
        """UIDs of the series that the PACS lists, seldom older than `listing_seconds`."""
        with self._lock:
            now = time.monotonic()
            if now - self._listed[0] > self.listing_seconds:
                self._listed = now, tuple(self._look())
                self.send_waiting()
            return list(self._listed[1])

    def refresh(self) -> None:
        """Ask the PACS again."""
        self._listed = (-1e9, ())
        self.list_images()

    def get_labeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Series with a label of the tag; final ones may lie in the PACS alone."""
        listed = self.list_images()
        known = set(super().get_labeled_images(label_tag, labels))
        if label_tag in (None, FINAL):
            known |= {series for series, _ in self._referred.values()}
        return [uid for uid in listed if uid in known]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Series without a label of the tag, final by default."""
        known = set(self.get_labeled_images(label_tag, labels))
        return [uid for uid in self.list_images() if uid not in known]

    def status(self) -> dict[str, Any]:
        """How many series the PACS lists, how many have a final label, how many labels of each tag are here."""
        return {
            **super().status(),
            "total": len(self.list_images()),
            "completed": len(self.get_labeled_images()),
        }

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Image, label and what is known of both; fetches what is not here yet."""
        for uid in self.get_labeled_images():
            try:
                self.get_label_uri(uid, FINAL)
            except DataError as error:
                log.warning("%s: label passed over, %s", uid, error)
        return super().datalist(full_path)

    def get_image_uri(self, image_id: str) -> str:
        """The file of a series, or the folder of its files; fetched if need be. Empty for an unknown one.

        Raises:
            DataError: the PACS does not give it.
        """
        if not _UID.fullmatch(image_id) or image_id not in self.list_images():
            return ""
        folder = self.folder / (image_id + SERIES)
        with self._lock:
            own = self._fetching.setdefault(image_id, threading.Lock())
        with own:
            if not (folder / _COMPLETE).is_file():
                self._fetch(image_id, folder)
            (folder / _COMPLETE).touch()
        files = [p for p in folder.iterdir() if not p.name.startswith(".")]
        return str(files[0] if len(files) == 1 else folder)

    def stamp(self, image_id: str) -> str:
        """The series' UID: what it holds does not change. Empty for one that is not here, unless all are to come."""
        here = self.fetch_all or (self.folder / (image_id + SERIES) / _COMPLETE).is_file()
        return image_id if here else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label; a final one that lies in the PACS alone is fetched, and put on the grid of its image.

        Raises:
            DataError: the PACS does not give it, or it cannot be read.
        """
        if label_tag == FINAL and label_id not in FolderStore.get_labeled_images(self):
            made = {seg: when for seg, (series, when) in self._referred.items() if series == label_id}
            if made and label_id in self.list_images():
                self._take_seg(label_id, max(made, key=made.__getitem__))
        return super().get_label_uri(label_id, label_tag)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any] | None
    ) -> str:
        """Store a label here and, if it is final, as a DICOM Segmentation in the PACS.

        Raises:
            DataError: the label does not fit its image; or the PACS refuses it: then it stays here, and is sent again
                with the next look at the PACS.
        """
        if label_tag != FINAL:
            return super().save_label(image_id, label_filename, label_tag, label_info)
        info = dict(label_info or {})
        self._image(image_id)
        content = label_to_seg(self._opened(image_id), Path(label_filename), info, self.targets)
        if content:
            waiting = self.folder / ".segs" / f"{image_id}-{time.time_ns()}.dcm"
            write_durably(waiting, content)
        saved = super().save_label(image_id, label_filename, label_tag, info)
        if content and not self._send(waiting):
            raise DataError(
                f"{self.name()}: refuses the segmentation of {image_id}; the label is stored here, and is sent again "
                "later. Check the PACS."
            )
        return saved

    def send_waiting(self) -> int:
        """Send the segmentations that the PACS has not taken yet; how many still wait."""
        files = sorted((self.folder / ".segs").glob("[0-9]*.dcm"))
        return sum(not self._send(path) for path in files)

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, Any] | None) -> str:
        """Refused: images come from the PACS.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.name()}: takes no images from here, expected them in the PACS. Store them there."
        )

    def remove_image(self, image_id: str) -> None:
        """Refused: images are the PACS's.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.name()}: nothing is removed from a PACS here. Remove it there.")

    def _look(self) -> list[str]:
        """Ask the PACS for series and segmentations; a folder each for new ones, their facts in one write."""
        facts = self.archive.series(self.search_filter)
        uids = [u for u, row in facts.items() if _UID.fullmatch(u) and row.get("Modality") not in _NO_IMAGES]
        known = set(super().list_images())
        new = {uid: facts[uid] for uid in uids if uid not in known}
        for uid in new:
            (self.folder / (uid + SERIES)).mkdir(parents=True, exist_ok=True)
        if new:
            self.update_images_info(new)
        for seg, row in self.archive.series({"Modality": "SEG"}).items():
            if seg not in self._referred and row.get("Modality", "SEG") == "SEG":
                self._referred[seg] = self.archive.referenced(row.get("StudyInstanceUID", ""), seg)
        return uids

    def _fetch(self, uid: str, folder: Path) -> None:
        """Download a series; `.complete` is written last."""
        study = str(self.image_facts(uid).get("StudyInstanceUID", ""))
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(self.archive.instances(study, uid)):
            part = folder / f"{PART}{number}.dcm"
            data.save_as(part, write_like_original=False)
            name = str(data.get("SOPInstanceUID", ""))
            move_durably(part, folder / f"{name if _UID.fullmatch(name) else number}.dcm")
        (folder / _COMPLETE).touch()
        self._make_room(folder)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of a series, its path among it; empty for an unknown one."""
        info = self.image_facts(image_id)
        return {**info, "path": self.get_image_uri(image_id)} if info else {}

    def _make_room(self, keep: Path) -> None:
        """Empty the folders of the series that were asked for longest ago."""
        held = []
        for mark in self.folder.glob(f"*{SERIES}/{_COMPLETE}"):
            size = sum(p.stat().st_size for p in mark.parent.iterdir())
            held.append((mark.stat().st_mtime, size, mark))
        total = sum(size for _, size, _ in held)
        for used, size, mark in sorted(held):
            if total <= self.cache_bytes:
                return
            if mark.parent != keep and used < time.time() - _RECENT:
                mark.unlink(missing_ok=True)  # first: what follows is not whole
                for path in mark.parent.iterdir():
                    path.unlink(missing_ok=True)
                total -= size

    def _image(self, image_id: str) -> Any:
        self.list_images()
        return super()._image(image_id)

    def _opened(self, uid: str) -> Image:
        return read_image(Path(self.get_image_uri(uid)))

    def _send(self, path: Path) -> bool:
        """STOW a segmentation, and forget it when the PACS has it."""
        from pydicom import dcmread

        with self._sending:
            if not path.is_file():  # somebody who looked at the PACS meanwhile has sent it
                return True
            data = dcmread(path)
            if not self.archive.store(data):
                return False
            self._referred[str(data.SeriesInstanceUID)] = (path.name.rsplit("-", 1)[0], made_at(data))
            path.unlink()
        return True

    def _take_seg(self, uid: str, seg: str) -> None:
        """A segmentation of the PACS as a label of this store."""
        study = str(self.image_facts(uid).get("StudyInstanceUID", ""))
        image = self._opened(uid)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seg.dcm"
            self.archive.instances(study, seg)[-1].save_as(path, write_like_original=False)
            mask, names = read_seg(path, image)
            info = {"label_info": [{"name": n, "idx": v} for v, n in names.items()], "SeriesInstanceUID": seg}
            super().save_label(uid, str(write_mask(image, mask, Path(folder))), FINAL, info)
