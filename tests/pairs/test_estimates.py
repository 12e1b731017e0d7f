import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unsmear.basis.kernels import check_kernels
from unsmear.cli import app
from unsmear.errors import PairsError
from unsmear.estimation.uniform import estimate_uniform
from unsmear.evaluation.layouts import find_pairs
from unsmear.pairs import PairSampler, WrittenPairs, write_estimates, write_pairs


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def sampler(photos):
    return PairSampler(photos, seed=5, size=32)


@pytest.fixture(scope="module")
def written(sampler, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates") / "set"
    write_pairs(sampler, 6, folder, workers=1)
    report = write_estimates(folder, 4, workers=1)
    assert (report.written, report.present, report.without) == (4, 0, 0)
    return folder


def test_what_is_stored_is_the_estimate_of_the_luma(written):
    pairs = WrittenPairs(written)
    assert pairs.estimates == 4 == json.loads((written / "manifest.json").read_text())["estimates"]
    for index in range(4):
        kernel = pairs.estimate(index)
        check_kernels(kernel.numpy())
        image = np.asarray(Image.open(written / f"blurred/000/{index:08d}.png"), np.float32) / 255
        luma = torch.from_numpy(image @ np.array([0.299, 0.587, 0.114], np.float32))
        torch.testing.assert_close(kernel, estimate_uniform(luma).kernel, rtol=0, atol=1e-3)
    assert pairs.estimate(4) is None
    with pytest.raises(IndexError):
        pairs.estimate(6)
    assert len(find_pairs(written).pairs) == 6
    assert not (written / ".partial").exists()


def test_a_second_call_finds_them_and_a_larger_number_adds(sampler, written, tmp_path):
    folder = tmp_path / "set"
    write_pairs(sampler, 3, folder, workers=1)
    assert write_estimates(folder, 2, workers=1).written == 2
    write_pairs(sampler, 6, folder, workers=1)  # more pairs do not forget the estimates
    assert WrittenPairs(folder).estimates == 2
    report = write_estimates(folder, 4, workers=2)
    assert (report.written, report.present) == (2, 2)
    assert "2 kernels estimated, 2 were there" in str(report)
    assert write_estimates(folder, 1, workers=1).present == 4
    assert contents(folder) == contents(written)


def test_a_picture_of_one_colour_has_a_single_pixel(tmp_path):
    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "grey.png")
    from unsmear.pairs import PairSettings

    settings = PairSettings(noise_free_share=1.0, jpeg_share=0.0)
    write_pairs(
        PairSampler(tmp_path / "grey.png", size=32, settings=settings), 1, tmp_path / "set", workers=1
    )
    report = write_estimates(tmp_path / "set", 1, workers=1)
    assert report.without == 1 and "1 pictures give no kernel" in str(report)
    assert torch.equal(WrittenPairs(tmp_path / "set").estimate(0), torch.ones(1, 1))
    assert b"one colour" in (tmp_path / "set/estimates/000/00000000.safetensors").read_bytes()


def test_damaged_estimates_are_named_and_made_again(sampler, written, tmp_path):
    folder = tmp_path / "set"
    write_pairs(sampler, 6, folder, workers=1)
    write_estimates(folder, 4, workers=1)
    path = folder / "estimates/000/00000002.safetensors"
    path.write_bytes(b"")
    with pytest.raises(PairsError, match=r"estimates/000/00000002\.safetensors .* with --estimates again"):
        WrittenPairs(folder).estimate(2)
    path.unlink()
    assert write_estimates(folder, 4, workers=1).written == 1
    assert contents(folder) == contents(written)


def test_wrong_numbers_and_folders_are_refused(written, tmp_path):
    with pytest.raises(PairsError, match=r"asked for 7 estimates; .* holds 6 pairs"):
        write_estimates(written, 7)
    with pytest.raises(PairsError, match="asked for 0 estimates"):
        write_estimates(written, 0)
    with pytest.raises(PairsError, match="at least 1"):
        write_estimates(written, 4, workers=0)
    with pytest.raises(PairsError, match=r"no manifest\.json"):
        write_estimates(tmp_path, 1)


SCRIPT = """
import sys, time
import unsmear.pairs.estimates as estimates
whole = estimates.estimate_uniform
def slow(grey):
    time.sleep(0.3)
    return whole(grey)
estimates.estimate_uniform = slow
if __name__ == "__main__":
    estimates.write_estimates(sys.argv[1], 4, workers=1)
"""


def test_killed_and_called_again_gives_the_same_bytes(sampler, written, tmp_path):
    folder = tmp_path / "set"
    write_pairs(sampler, 6, folder, workers=1)
    script = tmp_path / "estimate.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, str(script), str(folder)])
    deadline = time.monotonic() + 120
    while not list(folder.glob("estimates/000/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(folder.glob("estimates/000/*.safetensors")))
    assert 1 <= done < 4
    assert WrittenPairs(folder).estimates == 0, "counted when all are there"
    assert WrittenPairs(folder).estimate(0) is None
    report = write_estimates(folder, 4, workers=1)
    assert (report.written, report.present) == (4 - done, done)
    assert contents(folder) == contents(written)


def test_the_command_writes_them(photos, written, tmp_path):
    words = ["pairs", str(photos), "-o", str(tmp_path / "set"), "--count", "6", "--size", "32", "--seed", "5"]
    done = CliRunner().invoke(app, [*words, "--estimates", "4", "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "4 kernels estimated, 0 were there" in done.output
    assert contents(Path(tmp_path / "set")) == contents(written)
