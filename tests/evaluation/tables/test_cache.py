"""The cache: what was put in is there later, and nothing else is."""

import hashlib
import math
import os

import pytest

from unsmear.errors import EvaluationError
from unsmear.evaluation.tables.cache import Cache, code_sha256, key_of


def test_a_key_depends_on_every_part_and_on_no_order():
    assert key_of(a=1, b="x") == key_of(b="x", a=1)
    keys = {key_of(a=1), key_of(a=2), key_of(b=1), key_of(a="1"), key_of(a=[1]), key_of(a=1, b=None)}
    assert len(keys) == 6


def test_the_hash_of_the_code_is_of_names_and_contents_of_its_modules_alone(tmp_path):
    (tmp_path / "part").mkdir()
    one, other = tmp_path / "part/one.py", tmp_path / "other.py"
    one.write_text("x = 1")
    other.write_text("")
    seen = []

    def look():
        code_sha256.cache_clear()
        seen.append(code_sha256(tmp_path))

    look()
    (tmp_path / "notes.txt").write_text("no code")
    look()
    assert seen[0] == seen[1]
    one.write_text("x = 2")
    look()
    one.rename(tmp_path / "part/two.py")
    look()
    assert len(set(seen)) == 3
    code_sha256.cache_clear()
    assert code_sha256() not in seen


def test_records_are_kept_from_one_run_to_the_next(tmp_path):
    cache = Cache(tmp_path / "new/cache")
    assert cache.get("k") is None
    cache.put("k", {"psnr": math.inf, "name": "Köhler"})
    other = Cache(tmp_path / "new/cache")  # while the first one is open, as after kill -9
    assert other.get("k") == {"psnr": math.inf, "name": "Köhler"}
    cache.put("k", {"psnr": 1})
    assert other.get("k") == {"psnr": 1}
    for one in (cache, other):
        one.close()


def test_files_are_hashed_once_and_again_when_they_change(tmp_path, monkeypatch):
    cache, file = Cache(tmp_path / "cache"), tmp_path / "a.png"
    file.write_bytes(b"one")
    missing = tmp_path / "missing.png"
    seen = []
    wanted = {file: hashlib.sha256(b"one").hexdigest()}
    assert cache.sha256_of([file, missing, file], progress=lambda: seen.append(1)) == wanted
    assert len(seen) == 1
    read = []
    monkeypatch.setattr("unsmear.evaluation.tables.cache._sha256", lambda path: read.append(path) or "new")
    assert cache.sha256_of([file]) == wanted and not read
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 12345))
    assert cache.sha256_of([file]) == {file: "new"} and read == [file]
    cache.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "cache.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(EvaluationError, match="no cache of unsmear's"):
        Cache(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="Cannot write into the folder"):
        Cache(tmp_path / "file")
