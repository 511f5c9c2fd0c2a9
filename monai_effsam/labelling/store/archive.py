# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The few things that are asked of a PACS, and one error for all the ways in which it may not answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from monai_effsam.errors import DataError
from monai_effsam.labelling.store.seg_reading import made_at, referenced_series

__all__ = ["DicomArchive"]

log = logging.getLogger(__name__)

TOLD = ("Modality", "StudyDate", "StudyTime", "PatientID", "StudyInstanceUID", "SeriesDescription")
"""What is kept of a series."""


class DicomArchive:
    """A DICOMweb service.

    Args:
        client: of `dicomweb_client`.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    @property
    def name(self) -> str:
        """Its address."""
        return str(getattr(self.client, "base_url", "DICOMweb"))

    def series(self, search_filter: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Series by UID, with what is `TOLD` of them.

        Raises:
            DataError: it does not answer.
        """
        from pydicom.dataset import Dataset

        rows = {}
        for item in self._asked(lambda: self.client.search_for_series(search_filters=dict(search_filter))):
            data = Dataset.from_json(dict(item))
            if uid := str(data.get("SeriesInstanceUID") or ""):
                rows[uid] = {k: str(data.get(k)) for k in TOLD if data.get(k) not in (None, "")}
        return rows

    def instances(self, study: str, series: str) -> list[Any]:
        """All instances of a series, as pydicom data sets.

        Raises:
            DataError: it does not answer, or has none.
        """
        found = list(self._asked(lambda: self.client.retrieve_series(study, series)))
        if not found:
            raise DataError(f"{self.name}: gives no instance of series {series}, expected some. Look there.")
        return found

    def referenced(self, study: str, seg: str) -> tuple[str, str]:
        """UID of the series that a segmentation refers to, and when it was made, as `made_at` tells it.

        Both are empty, with a warning, where that cannot be told.
        """
        from pydicom.dataset import Dataset

        try:
            metadata = Dataset.from_json(self.client.retrieve_series_metadata(study, seg)[0])
            return referenced_series(metadata), made_at(metadata)
        except Exception as error:  # noqa: BLE001  of HTTP, JSON or pydicom; one bad object hides no other
            log.warning("%s: segmentation passed over, %s", seg, error)
            return "", ""

    def store(self, data: Any) -> bool:
        """Store an instance; whether that went well, else with a warning."""
        try:
            self.client.store_instances([data])
        except Exception as error:  # noqa: BLE001  of HTTP or pydicom
            log.warning("%s: not stored, %s", data.get("SOPInstanceUID", ""), error)
            return False
        return True

    def _asked(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{self.name}: does not answer as a DICOMweb service ({reason}). Check it."
            ) from error
