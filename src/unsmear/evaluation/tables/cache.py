"""What earlier runs found, so that a run that was killed goes on and a new method costs only itself.

FOLDER/cache.sqlite holds hashes of files, scores and times; FOLDER/restored/ the pictures that networks
restored, as PNG. A key is a hash of what a result depends on, unsmear's own code included, so that nothing in
it goes out of date: what is no longer asked for is merely not found. The folder may be deleted at any time.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import unsmear
from unsmear.errors import EvaluationError
from unsmear.writable import make_writable

_TABLES = """
create table if not exists files (path text primary key, size integer, changed integer, sha256 text);
create table if not exists records (key text primary key, record text);
"""


def key_of(**parts: Any) -> str:
    """SHA-256 of named parts that JSON can hold; the order of the names does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@lru_cache
def code_sha256(folder: Path = Path(unsmear.__file__).parent) -> str:
    """SHA-256 of the names and contents of a package's modules, unsmear's without `folder`."""
    files = sorted(folder.rglob("*.py"))
    return key_of(**{path.relative_to(folder).as_posix(): _sha256(path) for path in files})


class Cache:
    """Records by key, and hashes of files by path, size and time of change.

    Written by the main process only, each record at once: what is in it survives `kill -9`.

    Raises:
        EvaluationError: the folder cannot be written, or its cache.sqlite is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        make_writable(self.folder / "restored", EvaluationError)
        self._file = self.folder / "cache.sqlite"
        try:
            self._connection = sqlite3.connect(self._file, timeout=60, isolation_level=None)
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.executescript(_TABLES)
        except sqlite3.Error as error:
            raise EvaluationError(
                f"{self._file} is no cache of unsmear's ({error}): delete it, or name another folder."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a record, None where there is none."""
        found = self._connection.execute("select record from records where key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, in place of an older one of that key."""
        text = json.dumps(record, ensure_ascii=False)
        try:
            self._connection.execute("insert or replace into records values (?, ?)", (key, text))
        except sqlite3.Error as error:
            raise EvaluationError(f"Cannot write {self._file}: {error}.") from error

    def picture(self, key: str) -> Path:
        """Where the restored picture of that key lies, or will."""
        return self.folder / "restored" / key[:2] / f"{key}.png"

    def sha256_of(
        self, paths: Iterable[Path], *, threads: int = 1, progress: Callable[[], object] = lambda: None
    ) -> dict[Path, str]:
        """SHA-256 of the content of files; those that cannot be read are left out.

        A file whose size and time of change are those of an earlier run is not read again.
        """
        known: dict[Path, str] = {}
        wanted: dict[Path, tuple[int, int]] = {}
        for path in dict.fromkeys(paths):
            try:
                status = path.stat()
            except OSError:
                continue
            row = self._connection.execute(
                "select sha256 from files where path = ? and size = ? and changed = ?",
                (str(path.absolute()), status.st_size, status.st_mtime_ns),
            ).fetchone()
            if row is None:
                wanted[path] = (status.st_size, status.st_mtime_ns)
            else:
                known[path] = row[0]
                progress()
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for path, digest in zip(wanted, pool.map(_sha256, wanted), strict=True):
                progress()
                if digest is not None:
                    known[path] = digest
                    self._connection.execute(
                        "insert or replace into files values (?, ?, ?, ?)",
                        (str(path.absolute()), *wanted[path], digest),
                    )
        return known


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
