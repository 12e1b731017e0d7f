"""A folder for results is there and takes files, or the reason is told in one sentence."""

from pathlib import Path

import pytest

from unsmear.errors import TrainingError
from unsmear.writable import make_writable


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_writable(tmp_path / "new/deep", TrainingError)
    assert list((tmp_path / "new/deep").iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="it is a file"):
        make_writable(tmp_path / "file", TrainingError)
    for folder in (tmp_path / "file", tmp_path / "file/below", Path("/proc/unsmear")):
        with pytest.raises(TrainingError, match=f"into the folder {folder}: .*; name another one"):
            make_writable(folder, TrainingError)
