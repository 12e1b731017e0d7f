"""Evaluation: layouts on disk, figures from an oracle, broken pairs named, results of other programs."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from typer.testing import CliRunner

import unsmear
from unsmear.cli import app
from unsmear.errors import EvaluationError, ModelError, PairsError
from unsmear.evaluation import Comparison, PairFiles, evaluate, find_pairs
from unsmear.evaluation.restorers import match_results, weights_sha256
from unsmear.metrics import psnr_shift_gain


def sharp_pixels(number: int = 0) -> NDArray[np.uint8]:
    top = 40 + 30 * number
    return data.astronaut()[top : top + 72, 150:240].copy()


def blurred_pixels(number: int = 0) -> NDArray[np.uint8]:
    """The mean over seven columns: a sideways motion."""
    wide = np.pad(sharp_pixels(number).astype(float), ((0, 0), (3, 3), (0, 0)), mode="edge")
    return np.mean([wide[:, k : k + 90] for k in range(7)], axis=0).round().astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_pairs(root: Path, *places: tuple[str, str]) -> Path:
    for number, (blurred, sharp) in enumerate(places):
        save(root / blurred, blurred_pixels(number))
        save(root / sharp, sharp_pixels(number))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs side by side, growing in name."""
    return make_pairs(tmp_path / "pairs", *((f"blur/{n}.png", f"sharp/{n}.png") for n in "abc"))


@pytest.mark.parametrize(
    ("places", "names", "layout"),
    [
        ([("blur/a.png", "sharp/a.png"), ("blur/b.png", "sharp/b.png")], ["a", "b"], "blur/ + sharp/"),
        ([("input/a.png", "target/a.png")], ["a"], "input/ + target/"),
        ([("blurred/a.png", "sharp/a.jpg")], ["a"], "blurred/ + sharp/"),
        ([("Blurry/x/a.png", "GT/x/a.png")], ["x/a"], "Blurry/ + GT/"),
        ([("data/test/lq/a.png", "data/test/gt/a.png")], ["data/test/a"], "lq/ + gt/"),
        (
            [
                ("test/GOPR0384_11_00/blur/000001.png", "test/GOPR0384_11_00/sharp/000001.png"),
                ("test/GOPR0385_11_01/blur/000001.png", "test/GOPR0385_11_01/sharp/000001.png"),
            ],
            ["test/GOPR0384_11_00/000001", "test/GOPR0385_11_01/000001"],
            "blur/ + sharp/",
        ),
        (
            [(f"blurred/00{n}/0000{n}017.png", f"sharp/00{n}/0000{n}017.png") for n in range(2)],
            ["000/00000017", "001/00001017"],
            "blurred/ + sharp/",
        ),
        (
            [("scene007/blur/blur_1.png", "scene007/gt/gt_1.png")],
            ["scene007/1"],
            "blur/ + gt/",
        ),
        (
            [
                ("blur/im1_kernel2_img.png", "sharp/im1.png"),
                ("blur/im1_kernel3_img.png", "sharp/im1.png"),
                ("blur/im10_kernel2_img.png", "sharp/im10.png"),
                ("blur/im1_b_kernel2_img.png", "sharp/im1_b.png"),
            ],
            ["im10_kernel2_img", "im1_b_kernel2_img", "im1_kernel2_img", "im1_kernel3_img"],
            "blur/ + sharp/",
        ),
    ],
)
def test_layouts_are_found(
    tmp_path: Path, places: list[tuple[str, str]], names: list[str], layout: str
) -> None:
    found = find_pairs(make_pairs(tmp_path, *places))
    assert [pair.name for pair in found.pairs] == names
    assert found.layout == layout and not found.failures
    expected = {tmp_path / blurred: tmp_path / sharp for blurred, sharp in places}
    assert {pair.blurred: pair.sharp for pair in found.pairs} == expected


def test_two_kinds_of_blur_ask_for_a_choice(tmp_path: Path) -> None:
    make_pairs(tmp_path, ("S/blur/1.png", "S/sharp/1.png"), ("S/blur_gamma/1.png", "S/sharp/1.png"))
    with pytest.raises(PairsError, match=r"blur, blur_gamma: say which"):
        find_pairs(tmp_path)
    found = find_pairs(tmp_path, blurred="blur_gamma")
    assert [pair.blurred.parent.name for pair in found.pairs] == ["blur_gamma"]


def test_files_without_a_partner_are_named(folder: Path) -> None:
    (folder / "sharp/b.png").unlink()
    save(folder / "sharp/d.png", sharp_pixels())
    (folder / "lonely/input").mkdir(parents=True)
    found = find_pairs(folder)
    assert [pair.name for pair in found.pairs] == ["a", "c"]
    assert [failure.name for failure in found.failures] == ["b", "d", "lonely/input"]
    assert "no partner in" in found.failures[0].reason and "sharp" in found.failures[2].reason


def test_a_csv_pairs_whatever_lies_anywhere(tmp_path: Path) -> None:
    for number in (0, 1):
        save(tmp_path / f"in/Blurry1_{number}.png", blurred_pixels())
    save(tmp_path / "truth.png", sharp_pixels())
    table = tmp_path / "pairs.csv"
    table.write_text(
        "\ufeffblurred,sharp\r\nin/Blurry1_0.png,truth.png\r\nin/Blurry1_1.png,truth.png\r\n,truth.png\r\n",
        encoding="utf-8",
    )
    found = find_pairs(table)
    assert [pair.name for pair in found.pairs] == ["in/Blurry1_0", "in/Blurry1_1"]
    assert {pair.sharp for pair in found.pairs} == {tmp_path / "truth.png"}
    assert found.failures[0].name == "pairs.csv, row 3"
    result = evaluate("input", table, contact_sheet=False)
    assert len(result.scores) == 2 and result.scores[0].psnr_input == result.scores[1].psnr_input


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no rows"), ("a,b\n1,2\n", r"found a, b; expected"), ("blurred,sharp\n", "no rows")],
)
def test_a_csv_without_pairs_says_what_it_holds(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(PairsError, match=message):
        find_pairs(tmp_path / "pairs.csv")


def test_places_without_pairs_say_what_they_hold(tmp_path: Path) -> None:
    save(tmp_path / "holiday.png", sharp_pixels())
    with pytest.raises(PairsError, match=r"found holiday\.png; expected two folders"):
        find_pairs(tmp_path)
    for missing in (tmp_path / "nothing", tmp_path / "holiday.png", tmp_path / "nothing.csv"):
        with pytest.raises(PairsError, match="neither a folder of pairs nor a CSV"):
            find_pairs(missing)


def test_figures_are_those_of_scikit_image(folder: Path) -> None:
    result = evaluate(lambda x: x * 0.9, folder, contact_sheet=False)
    assert [score.name for score in result.scores] == ["a", "b", "c"]
    for number, score in enumerate(result.scores):
        sharp, before = sharp_pixels(number), blurred_pixels(number)
        after = (before.astype(np.float32) / 255 * np.float32(0.9) * 255).round().astype(np.uint8)
        for pixels, psnr, ssim in (
            (before, score.psnr_input, score.ssim_input),
            (after, score.psnr_output, score.ssim_output),
        ):
            assert psnr == pytest.approx(peak_signal_noise_ratio(sharp, pixels, data_range=255), abs=1e-4)
            oracle = structural_similarity(
                sharp, pixels, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                data_range=255, channel_axis=-1,
            )  # fmt: skip
            assert ssim == pytest.approx(oracle, abs=1e-6)
        assert score.psnr_gain == score.psnr_output - score.psnr_input
        assert (score.width, score.height) == (90, 72)
        assert score.seconds is not None and score.seconds >= 0
    gains = [score.psnr_gain for score in result.scores]
    assert result.mean("psnr_gain") == pytest.approx(np.mean(gains))
    assert result.median("psnr_gain") == pytest.approx(np.median(gains))
    assert [result.extremes()[w].psnr_gain for w in ("worst", "median", "best")] == sorted(gains)
    scores = tuple(replace(result.scores[0], psnr_input=0, psnr_output=gain) for gain in (3, 1, 5, 2, 4))
    extremes = replace(result, scores=scores).extremes()
    assert {which: score.psnr_gain for which, score in extremes.items()} == {
        "worst": 1,
        "median": 3,
        "best": 5,
    }


def test_the_input_gains_nothing_and_the_truth_everything(folder: Path) -> None:
    unchanged = evaluate("input", folder, contact_sheet=False)
    assert all(score.psnr_gain == 0 and score.seconds is None for score in unchanged.scores)
    perfect = evaluate(folder / "sharp", folder)
    assert all(score.psnr_output == math.inf and score.ssim_output == 1 for score in perfect.scores)
    text = json.dumps(perfect.summary(), allow_nan=False)
    assert json.loads(text)["mean"]["psnr_rgb_output"] == "inf"
    twice = evaluate("input", [PairFiles("same", folder / "sharp/a.png", folder / "sharp/a.png")])
    assert twice.scores[0].psnr_gain == 0 and "+0.00" in twice.table()


def test_pairs_without_blur_are_counted_and_not_averaged(folder: Path) -> None:
    """What `unsmear pairs` writes holds some: their PSNR is infinite, and any change a loss of infinity."""
    plain = evaluate(lambda x: x * 0.9, folder, contact_sheet=False)
    save(folder / "blur/d.png", sharp_pixels(3))
    save(folder / "sharp/d.png", sharp_pixels(3))
    result = evaluate(lambda x: x * 0.9, folder)
    assert len(result.scores) == 4 and result.identical == 1 and plain.identical == 0
    for figure in ("psnr_input", "psnr_output", "psnr_gain"):
        assert result.mean(figure) == plain.mean(figure) and result.median(figure) == plain.median(figure)
    assert result.extremes() == {which: replace(score, seconds=result.extremes()[which].seconds)
                                 for which, score in plain.extremes().items()}  # fmt: skip
    assert result.mean("ssim_input") > plain.mean("ssim_input")
    assert "In 1 of 4 pictures input and truth are identical; figures in dB leave them out." in result.table()
    assert "inf" not in result.table() and "identical;" not in plain.table()
    assert result.summary()["identical"] == 1


def test_pairs_without_any_blur_have_no_finite_figure(folder: Path) -> None:
    pairs = [PairFiles("same", folder / "sharp/a.png", folder / "sharp/a.png")]
    result = evaluate("input", pairs)
    assert result.mean("psnr_input") == math.inf and result.mean("psnr_gain") == 0
    assert "In 1 of 1 picture input and truth are identical; no PSNR is finite." in result.table()


def test_eight_bit_rounding_is_the_default_and_counts(folder: Path) -> None:
    def slightly_off(x: Tensor) -> Tensor:
        return x + 0.4 / 255

    rounded = evaluate(slightly_off, folder, contact_sheet=False)
    exact = evaluate(slightly_off, folder, eight_bit=False, contact_sheet=False)
    assert rounded.mean("psnr_gain") == 0
    assert abs(exact.mean("psnr_gain")) > 1e-5
    assert rounded.summary()["protocol"]["eight_bit"] is True


def test_alignment_scores_what_the_metric_scores(tmp_path: Path) -> None:
    moved = np.roll(sharp_pixels(), (3, -2), (0, 1)) // 2
    save(tmp_path / "blur/a.png", moved)
    save(tmp_path / "sharp/a.png", sharp_pixels())
    result = evaluate("input", tmp_path, align="shift-gain", max_shift=5, contact_sheet=False)
    tensors = [torch.from_numpy(x).permute(2, 0, 1) / 255 for x in (moved, sharp_pixels())]
    assert result.scores[0].psnr_input == pytest.approx(
        psnr_shift_gain(*tensors, max_shift=5).item(), abs=1e-4
    )
    assert result.scores[0].psnr_input > 40 > 20 > evaluate("input", tmp_path).scores[0].psnr_input
    assert result.scores[0].ssim_input > 0.99
    assert [metric.name for metric in result.protocol.metrics] == [
        "psnr_shift_gain_luma",
        "ssim_gauss_rgb_shift_gain",
    ]
    with pytest.raises(EvaluationError, match="'none', 'shift' or 'shift-gain'"):
        Comparison(align="ecc")  # type: ignore[arg-type]


def test_crop_and_limit_take_the_middle_and_the_spread(folder: Path) -> None:
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    result = evaluate(look, folder, crop=40, limit=1, contact_sheet=False)
    assert [score.name for score in result.scores] == ["b"]
    middle = blurred_pixels(1)[16:56, 25:65]
    torch.testing.assert_close(seen[0], torch.from_numpy(middle).permute(2, 0, 1) / 255)
    assert result.scores[0].psnr_input == pytest.approx(
        peak_signal_noise_ratio(sharp_pixels(1)[16:56, 25:65], middle, data_range=255), abs=1e-4
    )


def test_a_crop_larger_than_pictures_is_told(folder: Path) -> None:
    assert "middle 99 px only, 3 smaller than that" in evaluate("input", folder, crop=99).table()
    assert "smaller than that" not in evaluate("input", folder, crop=72).table()


@pytest.mark.parametrize(("name", "number"), [("crop", 0), ("limit", 0), ("limit", -1), ("max_shift", -1)])
def test_numbers_that_mean_nothing_are_refused(folder: Path, name: str, number: int) -> None:
    with pytest.raises(EvaluationError, match=f"{name} is {number}; expected"):
        evaluate("input", folder, **{name: number})  # type: ignore[arg-type]
    option = f"--{name.replace('_', '-')}"
    result = CliRunner().invoke(app, ["evaluate", "input", str(folder), option, str(number)])
    assert result.exit_code == 2 and option in result.stderr


def test_an_output_that_cannot_be_written_is_refused_before_the_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option in ("--output", "--save-restored"):
        arguments = ["evaluate", "input", str(folder), "-o", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*arguments, option, str(tmp_path / "file/below")])
        assert result.exit_code == 1 and not result.stdout
        assert f"into the folder {tmp_path / 'file/below'}: not a directory" in result.stderr


def test_one_picture_is_shown_once(folder: Path) -> None:
    sheets = [evaluate("input", folder, limit=limit).contact_sheet for limit in (1, 2, 3)]
    heights = [sheet.height for sheet in sheets if sheet is not None]
    assert heights == [24 + rows * (24 + 288) for rows in (1, 2, 3)]


def broken(kind: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        if kind == "size":
            save(path, sharp_pixels()[:-1])
        elif kind == "truncated":
            path.write_bytes(path.read_bytes()[:-300])
        elif kind == "empty":
            path.write_bytes(b"")
        else:
            path.write_text("not a picture", encoding="utf-8")

    return spoil


@pytest.mark.parametrize("side", ["blur", "sharp"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("size", "90×72"), ("truncated", "b.png"), ("empty", "b.png"), ("text", "b.png")],
)
def test_a_broken_pair_is_named_and_the_rest_is_scored(
    folder: Path, side: str, kind: str, reason: str
) -> None:
    broken(kind)(folder / side / "b.png")
    result = evaluate("input", folder, contact_sheet=False)
    assert [score.name for score in result.scores] == ["a", "c"]
    assert [failure.name for failure in result.failures] == ["b"]
    assert reason in result.failures[0].reason
    assert "1 not scored:\n  b: " in result.table()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda x: x[:, :-1], "gave a picture of shape (3, 71, 90)"),
        (lambda x: x * math.nan, "NaN or infinity"),
        (lambda x: x.view(7, 11, 13), "invalid for input"),
    ],
)
def test_a_restorer_that_fails_on_one_picture_loses_only_that(
    folder: Path, spoil: Callable[[Tensor], Tensor], reason: str
) -> None:
    calls = []

    def sometimes(x: Tensor) -> Tensor:
        calls.append(x)
        return spoil(x) if len(calls) == 2 else x

    result = evaluate(sometimes, folder, contact_sheet=False)
    assert [score.name for score in result.scores] == ["a", "c"]
    assert result.failures[0].name == "b" and reason in result.failures[0].reason


def test_if_nothing_can_be_scored_the_first_reason_is_given(folder: Path) -> None:
    with pytest.raises(EvaluationError, match=r"None of 3 pairs could be scored; a: .*shape"):
        evaluate(lambda x: x[:, 1:], folder)


class Brighter(nn.Module):
    """A network that leaves no doubt whether it ran and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.1))
        self.header = {"model": "brighter", "step": 7}

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and x.ndim == 4
        return x + self.step


def test_a_network_is_run_in_evaluation_mode_and_described(folder: Path) -> None:
    network = Brighter().train()
    result = evaluate(network, folder, contact_sheet=False)
    assert network.training
    function = evaluate(lambda x: x + 0.1, folder, contact_sheet=False)
    assert result.mean("psnr_output") == pytest.approx(function.mean("psnr_output"), abs=1e-9)
    assert result.model["header"] == {"model": "brighter", "step": 7}
    assert result.model["parameters"] == 1 and len(result.model["weights_sha256"]) == 64
    other = Brighter()
    assert weights_sha256(other) == weights_sha256(network)
    other.step.data += 1e-3
    assert weights_sha256(other) != weights_sha256(network)


def test_an_unknown_model_is_an_error(folder: Path) -> None:
    pytest.importorskip("unsmear.models.checkpoints", exc_type=ImportError)
    for model in ("no-such-network", ""):
        with pytest.raises(ModelError, match=f"'{model}': neither a checkpoint"):
            evaluate(model, folder)
    with pytest.raises(ModelError, match="device: 'nonsense' is not here"):
        evaluate(Brighter(), folder, device="nonsense")


def test_summary_says_where_every_figure_comes_from(folder: Path) -> None:
    summary = evaluate("input", folder).summary()
    assert summary["unsmear"] == unsmear.__version__
    assert summary["model"] == {"name": "input"}
    assert summary["data"]["pairs"] == summary["pictures"] == 3
    again = evaluate("input", folder, contact_sheet=False).summary()
    assert again == summary
    save(folder / "sharp/c.png", sharp_pixels(0))
    changed = evaluate("input", folder, contact_sheet=False).summary()
    assert changed["data"]["sha256"] != summary["data"]["sha256"]


def test_written_files_hold_the_scores(folder: Path, tmp_path: Path) -> None:
    result = evaluate(lambda x: x * 0.9, folder)
    files = result.write(tmp_path / "out")
    assert [file.name for file in files] == ["scores.csv", "summary.json", "contact_sheet.png"]
    with files[0].open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    for row, score in zip(rows, result.scores, strict=True):
        assert float(row["psnr_rgb_input"]) == pytest.approx(score.psnr_input, abs=1e-6)
        assert float(row["psnr_rgb_output"]) == pytest.approx(score.psnr_output, abs=1e-6)
        assert float(row["psnr_rgb_gain"]) == pytest.approx(score.psnr_gain, abs=1e-6)
        assert float(row["ssim_gauss_rgb_output"]) == pytest.approx(score.ssim_output, abs=1e-6)
    assert json.loads(files[1].read_text(encoding="utf-8"))["mean"]["psnr_rgb_gain"] == result.mean(
        "psnr_gain"
    )
    with pytest.raises(EvaluationError, match="exists already"):
        result.write(tmp_path / "out")
    result.write(tmp_path / "out", overwrite=True)


def test_the_contact_sheet_shows_worst_median_and_best_in_this_order(folder: Path) -> None:
    """Output tiles stand in the middle column: there the picture restored best must be the last."""
    for name, change in (("a", 0), ("b", 60), ("c", 20)):  # b is worst, c the median, a the best
        pixels = sharp_pixels("abc".index(name)).clip(0, 195) + change
        save(folder / "restored" / f"{name}.png", pixels.astype(np.uint8))
    result = evaluate(folder / "restored", folder)
    assert [score.name for score in result.extremes().values()] == ["b", "c", "a"]
    assert result.contact_sheet is not None
    sheet = result.contact_sheet.pixels
    rows = [24 + 24 + row * (288 + 24) for row in range(3)]
    for top, name in zip(rows, "bca", strict=True):
        restored = np.array(Image.open(folder / "restored" / f"{name}.png"))
        assert (sheet[top : top + 72, 294 : 294 + 90] == restored).all()
        assert (sheet[top : top + 72, :90] == blurred_pixels("abc".index(name))).all()
        assert (sheet[top : top + 72, 588 : 588 + 90] == sharp_pixels("abc".index(name))).all()
        assert (sheet[top - 24 : top, :200] < 128).any()  # a caption


def test_the_contact_sheet_of_a_large_set_is_restored_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def darker(x: Tensor) -> Tensor:
        calls.append(x)
        return x * 0.9

    kept = evaluate(darker, folder).contact_sheet
    assert len(calls) == 3
    monkeypatch.setattr("unsmear.evaluation.scoring._SHOWN", 1)
    again = evaluate(darker, folder).contact_sheet
    assert len(calls) == 3 + 3 + 2
    assert kept is not None and again is not None and (kept.pixels == again.pixels).all()


def test_what_is_saved_scores_the_same_as_a_folder_of_results(folder: Path, tmp_path: Path) -> None:
    direct = evaluate(lambda x: x * 0.93, folder, save_restored=tmp_path / "restored")
    read = evaluate(tmp_path / "restored", folder)
    assert [score.psnr_output for score in read.scores] == [score.psnr_output for score in direct.scores]
    again = None
    with pytest.raises(EvaluationError, match="None of 3 pairs"):
        again = evaluate(lambda x: x, folder, save_restored=tmp_path / "restored")
    assert again is None


def test_a_grey_photo_stays_grey(tmp_path: Path) -> None:
    for side in ("blur", "sharp"):
        save(tmp_path / side / "a.png", sharp_pixels()[..., 0])
    tint = torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    result = evaluate(lambda x: x + tint, tmp_path, eight_bit=False, contact_sheet=False)
    assert result.scores[0].psnr_output > 100


def some_pairs(root: Path, *names: str) -> list[PairFiles]:
    def blurred(name: str) -> Path:
        scene, _, frame = name.rpartition("/")
        return root / scene / "blur" / f"{frame}.png"

    return [PairFiles(name, blurred(name), root / f"{name}.png") for name in names]


@pytest.mark.parametrize(
    "results",
    [
        ("S1/blur/001.jpg", "S2/blur/001.jpg"),
        ("out/S1/001.png", "out/S2/001.png"),
        ("S1-001.png", "S2-001.png"),
        ("S1_001.png", "S2_001.png"),
    ],
)
def test_results_of_other_programs_are_found_by_their_names(tmp_path: Path, results: tuple[str, str]) -> None:
    pairs = some_pairs(tmp_path / "set", "test/S1/001", "test/S2/001")
    for result in results:
        save(tmp_path / "results" / result, sharp_pixels())
    found = match_results(tmp_path / "results", pairs)
    assert [found[pair.blurred] for pair in pairs] == [tmp_path / "results" / result for result in results]


def test_a_result_is_never_given_to_the_wrong_pair(tmp_path: Path) -> None:
    pairs = some_pairs(tmp_path / "set", "S1/001", "S2/001", "S2/002")
    save(tmp_path / "flat/001.png", sharp_pixels())
    save(tmp_path / "flat/002.png", sharp_pixels())
    assert [path.name for path in match_results(tmp_path / "flat", pairs)] == ["002.png"]
    save(tmp_path / "scenes/S2/001.png", sharp_pixels())
    found = match_results(tmp_path / "scenes", pairs)
    assert list(found) == [pairs[1].blurred]


def test_a_missing_result_is_named(folder: Path, tmp_path: Path) -> None:
    for name in "ac":
        save(tmp_path / f"restored/{name}.png", sharp_pixels())
    result = evaluate(tmp_path / "restored", folder, contact_sheet=False)
    assert [failure.name for failure in result.failures] == ["b"]
    assert "no restored picture" in result.failures[0].reason


def test_the_command_prints_writes_and_tells_by_its_exit_code(folder: Path, tmp_path: Path) -> None:
    run, out = CliRunner(), tmp_path / "out"
    good = run.invoke(app, ["evaluate", "input", str(folder), "-o", str(out)])
    assert good.exit_code == 0, good.output
    assert "psnr_rgb (dB)" in good.output and (out / "scores.csv").is_file()
    broken("empty")(folder / "sharp/b.png")
    again = ["evaluate", "input", str(folder), "-o", str(out), "--align", "shift", "--max-shift", "4"]
    bad = run.invoke(app, [*again, "--overwrite"])
    assert bad.exit_code == 1
    assert "psnr_shift_luma (dB)" in bad.output and "1 not scored:\n  b: " in bad.output
    refused = run.invoke(app, again)
    assert refused.exit_code == 1 and "replace it by --overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr
