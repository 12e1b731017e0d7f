"""`unsmear tables` as a whole: figures, the paper beside them, resuming, what fails, what is written."""

import csv
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.errors import EvaluationError, ModelError
from unsmear.evaluation import evaluate
from unsmear.evaluation.benchmarks import BENCHMARKS, Benchmark, Case
from unsmear.evaluation.paper_figures import TABLES
from unsmear.evaluation.protocols import PROTOCOLS, Metric, Protocol
from unsmear.evaluation.restorers import weights_sha256
from unsmear.evaluation.tables import make_tables, options, running
from unsmear.models import create
from unsmear.models.by_kernels import FILLER, WITNESS
from unsmear.models.checkpoints import load_checkpoint, save_checkpoint, shipped_checkpoints


def save(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def sharp_pixels(number):
    top = 20 + 17 * number
    return data.astronaut()[top : top + 72, 150:240].copy()


def blurred_pixels(number, length=7):
    wide = np.pad(
        sharp_pixels(number).astype(float), ((0, 0), (length // 2, length // 2), (0, 0)), mode="edge"
    )
    return np.mean([wide[:, k : k + 90] for k in range(length)], axis=0).round().astype(np.uint8)


@pytest.fixture
def gopro(tmp_path):
    """Six pairs in two sequences, in the layout of GoPro."""
    for number in range(6):
        place = tmp_path / f"GoPro/test/GOPR03{84 + number // 3}_11_00"
        save(place / f"blur/{number:06d}.png", blurred_pixels(number))
        save(place / f"sharp/{number:06d}.png", sharp_pixels(number))
    return tmp_path / "GoPro"


@pytest.fixture
def results(tmp_path):
    """What another program made of them: a shorter blur, 1 to 6 pixels less."""
    for number in range(6):
        name = f"GOPR03{84 + number // 3}_11_00-{number:06d}.png"
        save(tmp_path / "theirs" / name, blurred_pixels(number, (5, 3, 5, 3, 1, 3)[number]))
    return tmp_path / "theirs"


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores(path):
    return {
        (row["method"], row["case"], row["metric"]): float(row["value"]) for row in rows(path / "scores.csv")
    }


def test_figures_are_those_of_evaluate(gopro, results, tmp_path):
    written = make_tables(["input", f"Theirs={results}"], {"gopro": gopro}, tmp_path / "out", workers=1)
    assert not written.failures
    found, oracle = scores(tmp_path / "out"), evaluate(results, gopro, contact_sheet=False)
    assert len(found) == 2 * 6 * 2
    for score in oracle.scores:
        case = score.name.removeprefix("test/")
        assert found["Theirs", case, "psnr_rgb"] == pytest.approx(score.psnr_output, abs=1e-5)
        assert found["input", case, "psnr_rgb"] == pytest.approx(score.psnr_input, abs=1e-5)
        assert found["Theirs", case, "ssim_gauss_rgb"] == pytest.approx(score.ssim_output, abs=1e-5)
    measured = {
        (row["method"], row["metric"]): row
        for row in rows(tmp_path / "out/figures.csv")
        if row["origin"] == "measured"
    }
    finite = [score.psnr_output for score in oracle.scores if score.psnr_output < math.inf]
    theirs = measured["Theirs", "psnr_rgb"]
    assert float(theirs["mean"]) == pytest.approx(np.mean(finite), abs=1e-5)
    assert (theirs["pictures"], theirs["of"], theirs["infinite"], theirs["groups"]) == ("5", "6", "1", "2")
    assert float(theirs["low"]) < float(theirs["mean"]) < float(theirs["high"])
    difference = next(row for row in rows(tmp_path / "out/differences.csv") if row["metric"] == "psnr_rgb")
    gains = [score.psnr_gain for score in oracle.scores if score.psnr_output < math.inf]
    assert (difference["method"], difference["against"]) == ("Theirs", "input")
    assert float(difference["mean"]) == pytest.approx(np.mean(gains), abs=1e-5)
    assert (float(difference["p"]), difference["pictures"]) == (2 / 2**5, "5")
    assert float(difference["better_on"]) == 1


@pytest.mark.skipif(not shipped_checkpoints(), reason="no weights in the package")
def test_a_network_is_scored_from_what_it_wrote_and_is_named_by_its_hash(gopro, tmp_path):
    name = shipped_checkpoints()[0]
    written = make_tables(
        ["input", f"Proposed={name}"], {"gopro": gopro}, tmp_path / "out", workers=1, limit=2
    )
    oracle = evaluate(name, gopro, limit=2, contact_sheet=False)
    found = scores(tmp_path / "out")
    for score in oracle.scores:
        place = ("Proposed", score.name.removeprefix("test/"), "psnr_rgb")
        assert found[place] == pytest.approx(score.psnr_output, abs=1e-5)
    origins = json.loads((tmp_path / "out/tables.json").read_text())
    used = [load_checkpoint(x) for x in (name, WITNESS, FILLER)]  # a guided network does not work alone
    assert origins["methods"][1]["weights_sha256"] == weights_sha256(*used) != weights_sha256(used[0])
    assert origins["methods"][1]["parameters"] == oracle.model["parameters"]
    result = written.results.of("Proposed", "gopro")[0]
    assert result.seconds > 0 and result.restored.is_file()
    assert "Proposed" in (tmp_path / "out/tables.html").read_text()


def test_other_code_may_restore_otherwise_so_a_network_restores_anew(gopro, tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_checkpoint(create("nafnet-16", width=4), tmp_path / "n.safetensors")
    call = {"methods": [f"N={tmp_path / 'n.safetensors'}"], "benchmarks": {"gopro": gopro}, "limit": 1}
    call |= {"cache": tmp_path / "cache", "workers": 1}
    work, asked = running.work, []
    monkeypatch.setattr(running, "work", lambda job: asked.append(job.network) or work(job))
    for name in ("one", "two"):
        one = make_tables(output=tmp_path / name, **call).results.of("N", "gopro")[0]
    assert len(asked) == 1 and asked[0]
    monkeypatch.setattr(running, "code_sha256", lambda: "another")
    other = make_tables(output=tmp_path / "three", **call).results.of("N", "gopro")[0]
    assert len(asked) == 2 and asked[1]
    assert other.restored != one.restored and other.sha256 == one.sha256


def test_a_label_of_the_paper_stands_in_its_row_and_figures_are_never_mixed(gopro, results, tmp_path):
    names = ["input", f"uformer+lrm={results}", f"Uformer={gopro / 'test'}", f"Other={results}"]
    for path in gopro.glob("test/*/blur/*.png"):  # what "Uformer" made: as it was
        save(tmp_path / f"same/{path.parents[1].name}-{path.name}", np.asarray(Image.open(path)))
    names[2] = f"Uformer={tmp_path / 'same'}"
    written = make_tables(names, {"gopro": gopro}, tmp_path / "out", workers=1)
    table = written.tables[0]
    heads = [(column.group, column.origin) for column in table.columns]
    assert [head for head in heads if head[1] == "paper"] == [("printed in the paper", "paper")] * 2
    by_name = {row[0].text: row for row in table.rows}
    assert list(by_name) == [*TABLES[0].rows, "input", "Other"]
    for name, row in by_name.items():
        printed = [
            cell.text for cell, column in zip(row, table.columns, strict=True) if column.origin == "paper"
        ]
        wanted = TABLES[0].rows.get(name)
        assert printed == (["—", "—"] if wanted is None else [f"{wanted[0]:.2f}", f"{wanted[1]:.4f}"])
        measured = row[3].text != "—"
        assert measured == (name in ("Uformer", "Uformer+LRM", "input", "Other"))
    assert by_name["Uformer+LRM"][3:5] != by_name["Uformer"][3:5]
    changes = next(one for one in written.tables if one.key == "table-1-changes")
    change = {row[0].text: row for row in changes.rows}["Uformer → Uformer+LRM"]
    assert change[1].text.startswith("+") and change[3].text == "+0.17" and change[4].text == "+0.0026"
    found = rows(tmp_path / "out/figures.csv")
    paper = [row for row in found if row["origin"] == "paper"]
    assert len(paper) == sum(len(figures) for one in TABLES for figures in one.rows.values())
    assert all(not row["protocol"] and not row["low"] for row in paper)
    assert all(row["data_sha256"] and row["restored_sha256"] for row in found if row["origin"] == "measured")


def test_the_same_call_again_computes_nothing_and_writes_the_same(gopro, results, tmp_path, monkeypatch):
    call = {"methods": ["input", str(results)], "benchmarks": {"gopro": gopro}, "workers": 1}
    make_tables(output=tmp_path / "out", **call)
    first = (tmp_path / "out/scores.csv").read_text()
    work, done = running.work, []
    monkeypatch.setattr(running, "work", lambda job: done.append(job) or work(job))
    with pytest.raises(EvaluationError, match=r"tables\.md exists already: .*--overwrite"):
        make_tables(output=tmp_path / "out", **call)
    make_tables(output=tmp_path / "out", overwrite=True, **call)
    assert not done and (tmp_path / "out/scores.csv").read_text() == first
    save(results / "GOPR0384_11_00-000001.png", blurred_pixels(1, 5))
    make_tables(output=tmp_path / "other", cache=tmp_path / "out/cache", **call)
    assert [job.case.name for job in done] == ["GOPR0384_11_00/000001"]
    assert (tmp_path / "other/scores.csv").read_text() != first
    newer = replace(PROTOCOLS["gopro_rgb"], version=99)
    monkeypatch.setitem(PROTOCOLS, "gopro_rgb", newer)
    make_tables(output=tmp_path / "third", cache=tmp_path / "out/cache", **call)
    assert len(done) == 1 + 12
    monkeypatch.setattr(running, "code_sha256", lambda: "another")
    make_tables(output=tmp_path / "fourth", cache=tmp_path / "out/cache", **call)
    assert len(done) == 1 + 12 + 12


def test_bad_pictures_are_named_and_the_rest_is_done(gopro, results, tmp_path):
    (results / "GOPR0384_11_00-000000.png").unlink()
    save(results / "GOPR0384_11_00-000001.png", blurred_pixels(1)[:-1])
    (results / "GOPR0384_11_00-000002.png").write_bytes(b"no picture")
    truth = gopro / "test/GOPR0385_11_00/sharp/000004.png"
    truth.write_bytes(truth.read_bytes()[:-300])
    arguments = ["tables", "input", f"Theirs={results}", "-b", f"gopro={gopro}", "-o", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, [*arguments, "--workers", "1"])
    assert shown.exit_code == 1, shown.output
    assert "5 not scored:" in shown.output
    for name, reason in (
        ("gopro/GOPR0384_11_00/000000, Theirs", "no restored picture in"),
        ("gopro/GOPR0384_11_00/000001, Theirs", "is 90×71"),
        ("gopro/GOPR0384_11_00/000002, Theirs", "GOPR0384_11_00-000002.png"),
        ("gopro/GOPR0385_11_00/000004, Theirs", "000004.png"),
        ("gopro/GOPR0385_11_00/000004, input", "000004.png"),
    ):
        line = next(line for line in shown.output.splitlines() if name in line)
        assert reason in line
    assert len(scores(tmp_path / "out")) == 2 * (5 + 2)
    assert "of 2 of 6" in (tmp_path / "out/tables.md").read_text()
    assert "5 not scored" in (tmp_path / "out/tables.html").read_text()


def test_if_nothing_can_be_scored_the_first_reason_is_given(gopro, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"Nothing could be scored; gopro/.* has a name that fits"):
        make_tables([str(tmp_path / "empty")], {"gopro": gopro}, tmp_path / "out", workers=1)


class Darkness(Protocol):
    """A protocol of one's own: the smaller the better."""

    name = "darkness"
    title = "mean of all values"
    metrics = (Metric("mean", "", higher_is_better=False),)

    def score(self, restored, case):
        return {"mean": float(restored.mean())}


class Lonely(Benchmark):
    """A benchmark of one's own, without truth."""

    name = "lai-real"
    title = "Lonely & <co>"
    homepage = ""
    licence = "CC0"
    layout = "any"

    def cases(self, root, **choice):
        return [Case(path.stem, path, ()) for path in sorted(Path(root).glob("*.png"))]


def test_a_benchmark_and_a_protocol_of_ones_own(results, tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "lai-real", Lonely())
    monkeypatch.setitem(PROTOCOLS, "darkness", Darkness())
    for path in results.glob("*.png"):
        save(tmp_path / "dark" / path.name, np.asarray(Image.open(path)) // 2)
    written = make_tables(
        ["input", f"Dark={tmp_path / 'dark'}"], {"lai-real": results}, tmp_path / "out",
        protocols={"lai-real": ["darkness"]}, workers=1,
    )  # fmt: skip
    assert [table.key for table in written.tables] == ["other"]
    assert (tmp_path / "out/pictures/fig-8.png").exists()
    difference = rows(tmp_path / "out/differences.csv")[0]
    assert float(difference["mean"]) < 0 and float(difference["better_on"]) == 1
    page = (tmp_path / "out/tables.html").read_text()
    assert "Lonely &amp; &lt;co&gt;" in page and "mean, less is better</h3>" in page


def test_crops_choose_pictures_and_places(gopro, results, tmp_path):
    call = {"methods": ["input", str(results)], "benchmarks": {"gopro": gopro}, "workers": 1, "show": 0}
    crop = "GOPR0385_11_00/000003:10,20,30,24"
    written = make_tables(output=tmp_path / "out", crops=[crop], **call)
    assert [file.name for file in written.files if file.suffix == ".png"] == [
        "gopro-GOPR0385_11_00_000003.png"
    ]
    picture = np.asarray(Image.open(written.files[-1]))
    zoom = np.asarray(Image.open(gopro / "test/GOPR0385_11_00/blur/000003.png"))[20:44, 10:40]
    centre = zoom[12, 15]
    assert (picture == centre).all(-1).any()
    for wrong, reason in (
        (crop.replace("10,", "70,"), "leaves GOPR"),
        ("nobody:0,0,9,9", "No picture is called"),
    ):
        with pytest.raises(EvaluationError, match=reason):
            make_tables(output=tmp_path / "wrong", cache=tmp_path / "out/cache", crops=[wrong], **call)


def test_options_are_read():
    assert options.folders(["gopro=a=b", "reds=c"]) == {"gopro": "a=b", "reds": "c"}
    assert options.protocols(["lai=x", "lai=y"]) == {"lai": ["x", "y"]}
    assert options.choices(["gopro.blurred=blur", "gopro.split=test"]) == {
        "gopro": {"blurred": "blur", "split": "test"}
    }


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: options.folders(["gopro"]), "should be NAME=FOLDER"),
        (lambda: options.folders(["a=1", "a=2"]), "a has 2 folders: 1, 2"),
        (lambda: options.choices(["gopro=blur"]), r"should be NAME\.KEY=VALUE"),
        (lambda: make_tables([], {"gopro": "x"}, "y"), "No method"),
        (lambda: make_tables(["input", "input"], {"gopro": "x"}, "y"), "Two methods are called “input”"),
        (lambda: make_tables(["truth=input"], {"gopro": "x"}, "y"), "choose another name"),
        (lambda: make_tables(["=input"], {"gopro": "x"}, "y"), "expected SOURCE or LABEL=SOURCE"),
        (lambda: make_tables(["input"], {}, "y"), "No benchmark"),
        (lambda: make_tables(["input"], {"gopr": "x"}, "y"), "did you mean gopro"),
        (lambda: make_tables(["input"], {"gopro": "x"}, "y", choices={"reds": {}}), "no --benchmark reds"),
        (lambda: make_tables(["input"], {"gopro": "x"}, "y", limit=0), "limit is 0"),
        (lambda: make_tables(["input"], {"gopro": "x"}, "y", crops=["a"]), "is no crop"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_written(call, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EvaluationError, match=reason):
        call()
    assert not list(tmp_path.iterdir())


def test_an_unknown_method_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="neither a checkpoint file"):
        make_tables(["nobody=nothing"], {"gopro": tmp_path}, tmp_path / "out")


def test_on_a_gpu_this_process_restores_and_others_score(gopro, results, monkeypatch):
    """Without a GPU: what restores is replaced, the rest is as it is."""
    protocols = (PROTOCOLS["gopro_rgb"],)
    cases = BENCHMARKS["gopro"].cases(gopro)[:2]
    jobs = [
        (running.Job("net", "gopro", case, ("net", "cuda"), "key",
                     results / f"{case.name.replace('/', '-')}.png", protocols), {})
        for case in cases
    ]  # fmt: skip
    restored = []
    monkeypatch.setattr(
        running, "work", lambda job: restored.append(job) or running.Done({}, {"seconds": 1.0})
    )
    outcomes = dict(
        (step[0].case.name, done) for step, done in running._work_off(jobs, 2, 1, torch.device("cuda"))
    )
    assert [(job.case, job.protocols) for job in restored] == [(case, ()) for case in cases]
    oracle = {score.name.removeprefix("test/"): score for score in evaluate(results, gopro).scores}
    for case in cases:
        assert outcomes[case.name].record == {"seconds": 1.0}
        psnr = outcomes[case.name].scores["gopro_rgb"]["psnr_rgb"]
        assert psnr == pytest.approx(oracle[case.name].psnr_output, abs=1e-9)


def records(folder):
    """Keys of the cache with the number of the row, which changes when a record is written anew."""
    try:
        connection = sqlite3.connect(f"file:{folder / 'cache.sqlite'}?mode=ro", uri=True)
    except sqlite3.Error:
        return {}
    try:
        return dict(connection.execute("select key, rowid from records").fetchall())
    except sqlite3.Error:
        return {}
    finally:
        connection.close()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_goes_on_where_it_was_and_leaves_no_process(tmp_path):
    for number in range(60):
        save(tmp_path / f"pairs/blur/{number:03d}.png", np.tile(blurred_pixels(number % 6), (6, 5, 1)))
        save(
            tmp_path / f"pairs/sharp/{number:03d}.png",
            np.roll(np.tile(sharp_pixels(number % 6), (6, 5, 1)), number),
        )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "unsmear", "tables", "input", "-b", f"pairs={tmp_path / 'pairs'}",
               "-o", str(out), "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 900
        while len(records(out / "cache")) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        children = [
            int(child)
            for task in Path(f"/proc/{process.pid}/task").glob("*/children")
            for child in task.read_text().split()
        ]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    before = records(out / "cache")
    assert 5 <= len(before) < 60 and not (out / "tables.md").exists() and len(children) >= 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [child for child in children if Path(f"/proc/{child}").exists()]
    for child in alive:
        os.kill(child, signal.SIGKILL)
    assert not alive
    call = {"methods": ["input"], "benchmarks": {"pairs": tmp_path / "pairs"}, "workers": 1}
    make_tables(output=out, **call)
    after = records(out / "cache")
    assert len(after) == 60 and before.items() <= after.items()
    make_tables(output=tmp_path / "plain", **call)
    assert (out / "scores.csv").read_text() == (tmp_path / "plain/scores.csv").read_text()
