"""Folders that results go into: made, and tried, before the work begins."""

import tempfile
from pathlib import Path

from unsmear.errors import UnsmearError


def make_writable(folder: str | Path, refusal: type[UnsmearError]) -> None:
    """Make a folder if it is missing, and make sure of it that files can be made in it.

    Raises:
        UnsmearError: of the kind `refusal`, where that does not work.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (
            "it is a file" if isinstance(error, FileExistsError) else (error.strerror or str(error)).lower()
        )
        raise refusal(
            f"Cannot write into the folder {folder}: {reason}; name another one, or make this one writable."
        ) from error
