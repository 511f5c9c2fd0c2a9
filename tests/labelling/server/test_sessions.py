# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Uploaded sessions, while other requests make and remove them."""

import pytest

pytest.importorskip("monailabel")

from monai_effsam.labelling.server.errors import Refusal
from monai_effsam.labelling.server.sessions import SessionStore
from monai_effsam.labelling.server.settings import Limits


@pytest.fixture
def sessions(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    return SessionStore(folder, Limits())


def test_a_folder_renamed_while_the_store_is_cleaned(sessions, tmp_path, monkeypatch):
    half = tmp_path / "sessions" / ".half"
    half.mkdir()
    remove_broken = sessions._remove_broken

    def renamed_first(folder):
        half.rename(tmp_path / "whole")
        remove_broken(folder)

    monkeypatch.setattr(sessions, "_remove_broken", renamed_first)
    sessions.clean()
    assert (tmp_path / "whole").is_dir()


def test_one_that_is_gone_has_no_last_use(sessions):
    with pytest.raises(Refusal, match="none of this id"):
        sessions.used("00000000-0000-4000-8000-000000000000")
