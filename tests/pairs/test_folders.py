import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from unsmear.errors import PairsError
from unsmear.evaluation.layouts import find_pairs
from unsmear.pairs import PairSampler, PairSettings, WrittenPairs, write_pairs


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def sampler(photos):
    return PairSampler(photos, seed=5, size=48)


@pytest.fixture(scope="module")
def written(sampler, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "set"
    report = write_pairs(sampler, 12, folder, workers=1)
    assert (report.written, report.present) == (12, 0)
    return folder


def test_a_written_pair_is_the_pair_of_the_sampler(sampler, written):
    pairs = WrittenPairs(written)
    assert len(pairs) == 12 and len(list(pairs)) == 12
    for index in range(12):
        one, two = sampler[index], pairs[index]
        for name in ("sharp", "blurred", "kernels", "masks"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert one.facts == two.facts
    with pytest.raises(IndexError):
        pairs[12]


def test_manifest_and_lines_say_what_was_made(sampler, written):
    manifest = json.loads((written / "manifest.json").read_text())
    assert (manifest["seed"], manifest["size"], manifest["count"]) == (5, 48, 12)
    assert PairSettings(**manifest["settings"]) == sampler.settings
    assert [photo["name"] for photo in manifest["photos"]] == sampler.names
    lines = [json.loads(line) for line in (written / "pairs.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(12))
    assert not (written / ".partial").exists()


def test_evaluation_finds_the_pairs(written):
    found = find_pairs(written)
    assert len(found.pairs) == 12 and not found.failures


def test_workers_do_not_change_a_byte(sampler, written, tmp_path):
    write_pairs(sampler, 12, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(written)


def test_a_second_call_finds_everything_and_more_pairs_extend(sampler, written, tmp_path):
    folder = tmp_path / "set"
    assert write_pairs(sampler, 5, folder, workers=1).written == 5
    assert write_pairs(sampler, 5, folder, workers=1).present == 5
    report = write_pairs(sampler, 12, folder, workers=1)
    assert (report.written, report.present) == (7, 5)
    assert contents(folder) == contents(written)


def test_missing_and_damaged_files_are_named_and_made_again(sampler, written, tmp_path):
    folder = tmp_path / "set"
    write_pairs(sampler, 12, folder, workers=1)
    (folder / "blurred/000/00000003.png").write_bytes(b"")
    with pytest.raises(PairsError, match=r"blurred/000/00000003\.png is damaged"):
        WrittenPairs(folder)[3]
    (folder / "kernels/000/00000003.safetensors").unlink()
    with pytest.raises(PairsError, match=r"00000003\.safetensors"):
        WrittenPairs(folder)[3]
    assert write_pairs(sampler, 12, folder, workers=1).written == 1
    assert contents(folder) == contents(written)


SCRIPT = """
import sys
from pathlib import Path
from unsmear.pairs import PairSampler, write_pairs
if __name__ == "__main__":
    write_pairs(PairSampler(sys.argv[1], seed=5, size=48), 3000, sys.argv[2], workers=2)
"""


def test_a_killed_run_is_finished_with_the_same_bytes(photos, sampler, tmp_path):
    script = tmp_path / "write.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, str(script), str(photos), str(folder)])
    deadline = time.monotonic() + 120
    while len(list(folder.glob("kernels/000/*.safetensors"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any((folder / ".partial").iterdir()) and time.monotonic() < deadline:  # the orphaned workers end
        before = len(list(folder.glob("kernels/*/*")))
        time.sleep(1)
        if len(list(folder.glob("kernels/*/*"))) == before:
            break
    with pytest.raises(PairsError, match="unfinished"):
        WrittenPairs(folder)
    for path in folder.glob("*/*/*.*"):
        assert path.stat().st_size > 0
    done = sorted(int(path.stem) for path in folder.glob("kernels/*/*.safetensors"))
    assert 20 <= len(done) < 3000
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["count"] = 12  # finish a smaller set, the others stay
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_pairs(sampler, 12, folder, workers=1)
    pairs = WrittenPairs(folder)
    for index in range(12):
        assert torch.equal(pairs[index].blurred, sampler[index].blurred)
        assert torch.equal(pairs[index].masks, sampler[index].masks)


def test_other_settings_seed_or_photos_are_refused(photos, written):
    for other, name in (
        (PairSampler(photos, seed=6, size=48), "seed"),
        (PairSampler(photos, seed=5, size=32), "size"),
        (PairSampler(photos, seed=5, size=48, settings=PairSettings(longest=20)), "settings"),
        (PairSampler(photos / "chelsea.png", seed=5, size=48), "photos"),
    ):
        with pytest.raises(PairsError, match=name):
            write_pairs(other, 12, written, workers=1)


def test_a_folder_of_other_things_is_refused(sampler, tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(PairsError, match="other things"):
        write_pairs(sampler, 2, tmp_path, workers=1)
    with pytest.raises(PairsError, match=r"no manifest\.json"):
        WrittenPairs(tmp_path)
    for content in ("{", "{}"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(PairsError, match="manifest"):
            WrittenPairs(tmp_path)
    with pytest.raises(PairsError, match="cannot write"):
        write_pairs(sampler, 2, tmp_path / "holiday.txt" / "set", workers=1)


def test_wrong_numbers_are_refused(sampler, tmp_path):
    for count, workers in ((0, 1), (1, 0)):
        with pytest.raises(PairsError, match="at least 1"):
            write_pairs(sampler, count, tmp_path / "set", workers=workers)


def test_a_bad_photo_does_not_end_the_run(photos, tmp_path):
    whole = (photos / "astronaut.jpg").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "b.jpg").write_bytes(whole)
    sampler = PairSampler(tmp_path / "in", size=48)
    report = write_pairs(sampler, 4, tmp_path / "out", workers=1)  # without a warning: the report says it
    assert report.written == 4
    assert "a.jpg" in str(report) and str(report).startswith("4 pairs written")
    assert len(WrittenPairs(tmp_path / "out")) == 4
