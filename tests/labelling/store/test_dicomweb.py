# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A PACS as datastore, against a DICOMweb client that answers from memory."""

import logging
import os
import time
from datetime import datetime
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

pytest.importorskip("monailabel")
pytest.importorskip("highdicom")

from monailabel.interfaces.exception import ImageNotFoundException

from monai_effsam.data.io import read_image
from monai_effsam.errors import DataError, UsageError
from monai_effsam.labelling.geometry import stored_affine, stored_size
from monai_effsam.labelling.learning.grid import label_on_grid
from monai_effsam.labelling.learning.labelled import labelled_items
from monai_effsam.labelling.store.dicomweb import DicomWebStore
from monai_effsam.labelling.store.seg_reading import read_seg

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
}


def instance(series, number, modality, pixels, **attributes):
    """A DICOM object in memory."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    data = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = CLASSES[modality], f"{series}.{number}"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series
    data.Modality, data.PatientID, data.InstanceNumber, data.SeriesNumber = modality, "P7", number, 4
    colour = pixels.ndim == 3
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for key, value in attributes.items():
        setattr(data, key, value)
    return data


class Pacs:
    """What of a DICOMweb client the store uses, over objects in memory."""

    base_url = "http://pacs/dicom-web"

    def __init__(self):
        self.objects, self.asked, self.refuse = [], [], False

    def search_for_series(self, search_filters=None):
        self.asked.append("search")
        rows = {}
        for data in self.objects:
            if all(str(data.get(k)) == str(v) for k, v in (search_filters or {}).items()):
                row = Dataset()
                for key in ("SeriesInstanceUID", "StudyInstanceUID", "Modality", "PatientID"):
                    setattr(row, key, data.get(key))
                rows[data.SeriesInstanceUID] = row.to_json_dict()
        return list(rows.values())

    def retrieve_series(self, study, series):
        self.asked.append(series)
        return [o for o in self.objects if (o.StudyInstanceUID, o.SeriesInstanceUID) == (study, series)]

    def retrieve_series_metadata(self, study, series):
        rows = []
        for data in self.retrieve_series(study, series):
            head = Dataset()
            for element in data:
                if element.keyword != "PixelData":
                    head.add(element)
            rows.append(head.to_json_dict())
        return rows

    def store_instances(self, datasets):
        if self.refuse:
            raise OSError("507 insufficient storage")
        self.objects += datasets


@pytest.fixture
def pacs():
    """A CT of five slices, a colour endoscopy picture and an ultrasound picture."""
    server, random = Pacs(), np.random.RandomState(0)
    for number in range(1, 6):
        server.objects.append(
            instance(
                "1.2.3.1", number, "CT", random.randint(-900, 300, (16, 12)).astype(np.int16),
                FrameOfReferenceUID="1.2.3.9", SliceThickness=2.5, PixelSpacing=[0.75, 0.5], RescaleSlope=1,
                RescaleIntercept=0, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[-10, 20, 5 + 2.5 * number],
            )
        )  # fmt: skip
    server.objects.append(instance("1.2.3.2", 1, "ES", random.randint(0, 255, (20, 30, 3), np.uint8)))
    server.objects.append(instance("1.2.3.3", 1, "US", random.randint(0, 255, (14, 18), np.uint8)))
    return server


@pytest.fixture
def store(pacs, tmp_path):
    return DicomWebStore(pacs, tmp_path / "cache", listing_seconds=0)


def drawn(store, uid, tmp_path, name="sent.nii.gz"):
    """A lopsided mask of two structures as a viewer would send it, and as it lies on the image's slices."""
    image = read_image(Path(store.get_image_uri(uid)))
    shape, affine = stored_size(image), stored_affine(image)
    values = np.zeros(shape, np.uint8)
    values[2:7, 3:9, : max(1, shape[2] - 2)] = 1
    values[8:10, 4:12, :1] = 5
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / name)
    return tmp_path / name, label_on_grid(tmp_path / name, image), image


INFO = {"label_info": [{"name": "liver", "idx": 1}, {"name": "Needle Tip", "idx": 5}]}


def test_every_modality_is_listed_and_fetched_once(store, pacs):
    assert store.list_images() == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert not any(a.startswith("1.2.3") for a in pacs.asked)  # a list fetches no pixels
    path = Path(store.get_image_uri("1.2.3.1"))
    assert path.is_dir()
    assert read_image(path).slices.shape == (5, 16, 12)
    single = Path(store.get_image_uri("1.2.3.2"))
    assert single.suffix == ".dcm"
    assert read_image(single).slices.shape == (1, 20, 30, 3)
    store.get_image_uri("1.2.3.1")
    assert pacs.asked.count("1.2.3.1") == 1
    assert store.get_image_info("1.2.3.3")["Modality"] == "US"
    assert store.status()["total"] == 3


def test_a_filter_chooses_series(pacs, tmp_path):
    store = DicomWebStore(pacs, tmp_path / "c", search_filter={"Modality": "US"})
    assert store.list_images() == ["1.2.3.3"]


@pytest.mark.parametrize("uid", ["../../etc", "1.2.3.1/../x", "1.2.9", "", "1" * 65])
def test_other_ids_are_nothing(store, uid, tmp_path):
    assert store.get_image_uri(uid) == ""
    with pytest.raises(ImageNotFoundException):
        store.save_label(uid, str(tmp_path / "x.nii.gz"), "final", {})


@pytest.mark.parametrize("uid", ["1.2.3.1", "1.2.3.2", "1.2.3.3"], ids=["ct", "colour", "us"])
def test_label_goes_to_the_pacs_and_comes_back(store, pacs, tmp_path, uid):
    path, expected, image = drawn(store, uid, tmp_path)
    store.save_label(uid, str(path), "final", INFO)
    seg = pacs.objects[-1]
    assert (seg.Modality, seg.StudyInstanceUID, seg.PatientID) == ("SEG", "1.2.3", "P7")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["liver", "Needle Tip"]
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert store.get_labeled_images() == [uid]
    assert not list((store.folder / ".segs").glob("*.dcm"))
    other = DicomWebStore(pacs, tmp_path / "other", listing_seconds=0)  # another server: from the PACS alone
    assert other.get_labeled_images() == [uid]
    assert uid not in other.get_unlabeled_images()
    [item] = labelled_items(other.datalist())
    assert (item.image_id, sorted(item.names.values())) == (uid, ["Needle Tip", "liver"])
    got = label_on_grid(item.label, image)
    names = {name: value for value, name in item.names.items()}
    assert np.array_equal(got == names["liver"], expected == 1)
    assert np.array_equal(got == names["Needle Tip"], expected == 5)


def test_a_label_that_is_submitted_again_is_told_from_the_first_and_taken(store, pacs, tmp_path):
    path, first, image = drawn(store, "1.2.3.2", tmp_path)
    store.save_label("1.2.3.2", str(path), "final", INFO)
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj) // 5, np.eye(4)), path)
    store.save_label("1.2.3.2", str(path), "final", {"label_info": [{"name": "Needle Tip", "idx": 1}]})
    old, new = pacs.objects[-2:]
    made = [datetime.strptime(seg.SeriesDescription[:19], "%Y-%m-%d %H:%M:%S") for seg in (old, new)]
    assert made[0] <= made[1] <= datetime.now()
    assert old.SeriesDescription[19:] == ": liver, Needle Tip"
    assert new.SeriesDescription[19:] == ": Needle Tip"
    assert old.ContentDate + old.ContentTime < new.ContentDate + new.ContentTime
    for number, order in enumerate(([old, new], [new, old])):  # a PACS lists as it likes
        pacs.objects[-2:] = order
        other = DicomWebStore(pacs, tmp_path / f"other{number}", listing_seconds=0)
        [item] = labelled_items(other.datalist())
        assert list(item.names.values()) == ["Needle Tip"]
        assert np.array_equal(label_on_grid(item.label, image) > 0, first == 5)


def test_a_cropped_segmentation_lies_where_it_was_drawn(store, pacs, tmp_path):
    path, expected, image = drawn(store, "1.2.3.1", tmp_path)
    store.save_label("1.2.3.1", str(path), "final", INFO)
    seg = pacs.objects[-1]
    frames = seg.pixel_array[:, 2:10, 1:11]
    seg.Rows, seg.Columns = frames.shape[1:]
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    seg._pixel_array = None
    for group in seg.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [float(x) + 1 * 0.5, float(y) + 2 * 0.75, z]
        del group.DerivationImageSequence
    seg.save_as(tmp_path / "cropped.dcm", write_like_original=False)
    mask, names = read_seg(tmp_path / "cropped.dcm", image)
    inside = np.zeros_like(expected)
    inside[:, 2:10, 1:11] = expected[:, 2:10, 1:11]
    assert names == {1: "liver", 2: "Needle Tip"}
    assert np.array_equal(mask, np.where(inside == 5, 2, inside))


def test_a_pacs_that_refuses_loses_nothing(store, pacs, tmp_path, caplog):
    path, _, _ = drawn(store, "1.2.3.2", tmp_path)
    pacs.refuse = True
    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match="sent again later"):
        store.save_label("1.2.3.2", str(path), "final", INFO)
    again = DicomWebStore(pacs, store.folder, listing_seconds=0)  # after a restart
    assert again.get_label_info("1.2.3.2", "final")["label_info"] == INFO["label_info"]
    assert again.send_waiting() == 1
    pacs.refuse = False
    again.list_images()
    assert pacs.objects[-1].Modality == "SEG"
    count = len(pacs.objects)
    again.list_images()
    assert len(pacs.objects) == count  # sent once


def test_empty_and_machine_labels_stay_here(store, pacs, tmp_path):
    path, _, image = drawn(store, "1.2.3.3", tmp_path)
    count = len(pacs.objects)
    store.save_label("1.2.3.3", str(path), "original", INFO)
    shape, affine = stored_size(image), stored_affine(image)
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine), path)
    store.save_label("1.2.3.3", str(path), "final", INFO)
    assert len(pacs.objects) == count
    assert store.get_labels_by_image_id("1.2.3.3") == {"original": "1.2.3.3", "final": "1.2.3.3"}


def test_the_cache_keeps_its_limit_and_labels_outlive_their_files(store, pacs, tmp_path):
    path, _, _ = drawn(store, "1.2.3.1", tmp_path)
    store.save_label("1.2.3.1", str(path), "original", INFO)
    store.cache_bytes = 1
    mark = store.folder / "1.2.3.1.dicom" / ".complete"
    store.get_image_uri("1.2.3.2")
    assert mark.is_file()  # somebody may be reading it
    os.utime(mark, (time.time() - 1000,) * 2)
    store.get_image_uri("1.2.3.3")
    assert not list(mark.parent.iterdir())
    assert store.get_label_info("1.2.3.1", "original")["label_info"] == INFO["label_info"]
    assert read_image(Path(store.get_image_uri("1.2.3.1"))).slices.shape == (5, 16, 12)


def test_a_download_that_was_killed_begins_again(store, pacs):
    folder = Path(store.get_image_uri("1.2.3.1"))
    (folder / ".complete").unlink()
    sorted(folder.iterdir())[0].unlink()
    (folder / ".part-1.dcm").write_bytes(b"half")
    assert len(read_image(Path(store.get_image_uri("1.2.3.1")))) == 5


def test_a_pacs_that_does_not_answer_is_told(pacs, tmp_path, monkeypatch):
    store = DicomWebStore(pacs, tmp_path / "c")
    monkeypatch.setattr(pacs, "search_for_series", lambda **k: 1 / 0)
    with pytest.raises(DataError, match=r"http://pacs/dicom-web: does not answer"):
        store.list_images()
    with pytest.raises(UsageError, match="in the PACS"):
        store.add_image("1.2", "x.dcm", {})


def test_foreign_objects_hide_nothing(store, pacs, caplog):
    seg = pydicom.Dataset()
    seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.Modality, seg.PatientID = "1.2.3", "1.2.3.8", "SEG", "P7"
    pacs.objects.append(seg)
    assert len(store.list_images()) == 3
    assert store.get_labeled_images() == []
