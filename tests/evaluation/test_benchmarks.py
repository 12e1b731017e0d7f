"""Readers: every layout as downloaded, and what is said of downloads that are broken."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from skimage import data
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.errors import EvaluationError
from unsmear.evaluation import BENCHMARKS, Benchmark, Case, evaluate, find_benchmark, find_protocol
from unsmear.evaluation.benchmarks.base import read_picture
from unsmear.evaluation.benchmarks.gopro import TEST_SEQUENCES
from unsmear.evaluation.benchmarks.koehler import used_frames
from unsmear.evaluation.benchmarks.report import describe, list_benchmarks, look, parse_choices

SHARP = np.ascontiguousarray(data.astronaut()[40:72, 150:190])
BLURRED = np.mean([np.roll(SHARP, k, 1) for k in range(-3, 4)], axis=0).round().astype(np.uint8)
LARGE = np.ascontiguousarray(data.astronaut()[:176, 100:280])  # the least that Köhler's score takes
REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pair(root: Path, blurred: str, sharp: str) -> None:
    save(root / blurred, BLURRED)
    if not (root / sharp).exists():
        save(root / sharp, SHARP)


def gopro(root: Path) -> None:
    for scene in ("GOPR0384_11_00", "GOPR0410_11_00"):
        for frame in ("000001", "000002"):
            pair(root, f"test/{scene}/blur/{frame}.png", f"test/{scene}/sharp/{frame}.png")


def repacked(root: Path) -> None:
    for name in ("GOPR0384_11_00-000001", "GOPR0384_11_00-000002"):
        pair(root, f"test/input/{name}.png", f"test/target/{name}.png")


def koehler(root: Path) -> None:
    """Two trajectories of image 1 with all their frames: links to two files."""
    save(root / "frame.png", LARGE)
    for trajectory in (3, 12):
        save(root / f"BlurryImages/Blurry1_{trajectory}.png", LARGE)
        folder = root / f"Image1/Kernel{trajectory}"
        folder.mkdir(parents=True)
        for number in range(1, 200):
            (folder / f"GroundTruth1_{trajectory}_{number}.png").hardlink_to(root / "frame.png")


def koehler_mat(root: Path) -> None:
    save(root / "BlurryImages/Blurry1_2.png", BLURRED)
    (root / "groundTruthMatFiles").mkdir()
    frames = np.repeat(SHARP[..., None], 3, axis=3)
    savemat(root / "groundTruthMatFiles/GroundTruth1_2.mat", {"GroundTruth": frames})


def koehler_preview(root: Path) -> None:
    for name in ("Blurry1_2", "Blurry1_10"):
        pair(root, f"BlurryImages/{name}.png", "preview_ground_truth/GroundTruth1_1_1.jpg")


def lai(kind: str, blur: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for name in ("manmade_01", "text_02"):
            for number in (1, 2):
                pair(root, f"synthetic_dataset/{kind}/{name}_{blur}_0{number}.png",
                     f"synthetic_dataset/ground_truth/{name}.png")  # fmt: skip

    return make


def lai_real(root: Path) -> None:
    for name in ("boat1", "face2"):
        save(root / f"real_dataset/{name}.jpg", BLURRED)


def photos(root: Path) -> None:
    save(root / "street.JPG", BLURRED)
    save(root / "tree.png", BLURRED)


def realblur(root: Path) -> None:
    lines = []
    for number in (3, 1):
        names = [f"{REALBLUR}/scene050/{kind}/{kind}_{number}.png" for kind in ("gt", "blur")]
        pair(root, names[1], names[0])
        lines.append(f"{names[0]} {names[1]} \n")
    (root / "RealBlur_J_test_list.txt").write_text("".join(lines), encoding="utf-8")


def hide(root: Path) -> None:
    for folder, name in (("test-close-ups", "1fromGOPR1"), ("test-long-shot", "2fromGOPR2")):
        pair(root, f"HIDE_dataset/test/{folder}/{name}.png", f"HIDE_dataset/GT/{name}.png")


def reds(root: Path) -> None:
    for frame in ("00000000", "00000001"):
        pair(root, f"val/val_blur/000/{frame}.png", f"val/val_sharp/000/{frame}.png")


def reds_part(root: Path) -> None:
    pair(root, "blur/020_00000026.png", "sharp/020_00000026.png")


def rsblur(root: Path) -> None:
    names = [f"RSBlur/0001/000001/{end}" for end in ("gt/gt_sharp.png", "real_blur/real_blur.png")]
    pair(root, names[1], names[0])
    (root / "RSBlur_real_test.txt").write_text(" ".join(names) + "\n", encoding="utf-8")


def levin(root: Path) -> None:
    for kernel in (1, 2):
        pair(root, f"blur/im1_kernel{kernel}_img.png", "sharp/im1.png")


LAYOUTS: dict[str, tuple[str, Callable[[Path], None], list[str], list[str]]] = {
    "gopro": ("gopro", gopro, ["GOPR0384_11_00/000001", "GOPR0384_11_00/000002", "GOPR0410_11_00/000001",
                               "GOPR0410_11_00/000002"], ["GOPR0384_11_00", "GOPR0410_11_00"]),
    "repacked": ("gopro", repacked, ["GOPR0384_11_00/000001", "GOPR0384_11_00/000002"], ["GOPR0384_11_00"]),
    "koehler": ("koehler", koehler, ["Blurry1_3", "Blurry1_12"], ["trajectory 03", "trajectory 12"]),
    "koehler .mat": ("koehler", koehler_mat, ["Blurry1_2"], ["trajectory 02"]),
    "preview": ("koehler-preview", koehler_preview, ["Blurry1_2", "Blurry1_10"],
                ["trajectory 02", "trajectory 10"]),
    "uniform": ("lai-uniform", lai("uniform", "kernel"), ["manmade_01_kernel_01", "manmade_01_kernel_02",
                "text_02_kernel_01", "text_02_kernel_02"], ["manmade", "text"]),
    "nonuniform": ("lai-nonuniform", lai("nonuniform", "gyro"), ["manmade_01_gyro_01", "manmade_01_gyro_02",
                   "text_02_gyro_01", "text_02_gyro_02"], ["manmade", "text"]),
    "real": ("lai-real", lai_real, ["boat1", "face2"], [""]),
    "photos": ("photos", photos, ["street", "tree"], [""]),
    "realblur": ("realblur-j", realblur, ["scene050/blur_3", "scene050/blur_1"], ["scene050"]),
    "hide": ("hide", hide, ["close-ups/1fromGOPR1", "long-shot/2fromGOPR2"], ["close-ups", "long-shot"]),
    "reds": ("reds", reds, ["000/00000000", "000/00000001"], ["000"]),
    "a part of reds": ("reds", reds_part, ["020/00000026"], ["020"]),
    "rsblur": ("rsblur", rsblur, ["0001/000001"], ["0001"]),
    "levin": ("levin", levin, ["im1_kernel1", "im1_kernel2"], ["kernel1", "kernel2"]),
    "pairs": ("pairs", gopro, ["test/GOPR0384_11_00/000001", "test/GOPR0384_11_00/000002",
                               "test/GOPR0410_11_00/000001", "test/GOPR0410_11_00/000002"], [""]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_download_is_read_as_it_lies(tmp_path: Path, layout: str) -> None:
    name, make, names, groups = LAYOUTS[layout]
    make(tmp_path)
    benchmark = find_benchmark(name)
    cases = benchmark.cases(tmp_path)
    assert [case.name for case in cases] == names
    assert sorted({case.group for case in cases}) == groups
    for case in cases:
        assert case.blurred.is_file()
        assert all(path.is_file() for path in case.truth)
        assert (name in ("lai-real", "photos")) == (case.truth == ())
    survey = benchmark.survey(tmp_path)
    assert (survey.found, survey.error) == (len(names), "")
    assert bool(survey.missing) == (name not in ("pairs", "photos"))
    assert find_protocol(benchmark.protocol).name == benchmark.protocol


def test_the_facts_of_the_full_sets() -> None:
    assert sum(TEST_SEQUENCES.values()) == BENCHMARKS["gopro"].count == 1111
    assert len(used_frames(1, 3)) == 197 and 30 not in used_frames(1, 3)
    counts = [len(used_frames(image, trajectory)) for image in range(1, 5) for trajectory in range(1, 13)]
    assert len(counts) == BENCHMARKS["koehler"].count and sorted(set(counts)) == [197, 198, 199, 200]
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and benchmark.title and benchmark.licence and benchmark.layout


def test_koehlers_frames_are_those_of_the_evaluation_code(tmp_path: Path) -> None:
    koehler(tmp_path)
    third, twelfth = find_benchmark("koehler").cases(tmp_path)
    assert len(third.truth) == 197 and third.truth[29].stem == "GroundTruth1_3_31"
    assert len(twelfth.truth) == 198 and twelfth.truth[-1].stem == "GroundTruth1_12_198"


def test_a_choice_is_asked_for(tmp_path: Path) -> None:
    gopro(tmp_path)
    save(tmp_path / "test/GOPR0410_11_00/blur_gamma/000001.png", BLURRED)
    save(tmp_path / "test/GOPR0410_11_00/blur_gamma/000002.png", BLURRED)
    with pytest.raises(EvaluationError, match="choose blurred=blur "):
        find_benchmark("gopro").cases(tmp_path)
    assert len(find_benchmark("gopro").cases(tmp_path, blurred="blur")) == 4
    for choice, message in (
        ({"blurred": "fog"}, "one of blur, blur_gamma"),
        ({"light": "on"}, "its choices: blurred, split"),
        ({"split": "train"}, "not laid out"),
    ):
        with pytest.raises(EvaluationError, match=message):
            find_benchmark("gopro").cases(tmp_path, **choice)
    reds(tmp_path / "R")
    save(tmp_path / "R/val/val_blur_jpeg/000/00000000.png", BLURRED)
    with pytest.raises(EvaluationError, match=r"val_blur/, val_blur_jpeg/: choose"):
        find_benchmark("reds").cases(tmp_path / "R")


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / old).rename(root / new)


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content)


def cut(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-400])


def smaller(name: str) -> Callable[[Path], None]:
    return lambda root: save(root / name, SHARP[:-3])


def swap(first: str, second: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (root / first).rename(root / "aside")
        (root / second).rename(root / first)
        (root / "aside").rename(root / second)

    return spoil


def fresh(root: Path, name: str, pixels: NDArray[np.uint8]) -> None:
    (root / name).unlink()
    save(root / name, pixels)


S = "test/GOPR0384_11_00"
BROKEN: list[tuple[str, Callable[[Path], None], Callable[[Path], None], str]] = [
    ("gopro", gopro, remove(f"{S}/sharp/000002.png"), r"sharp lacks 1 of .*: 000002"),
    ("gopro", gopro, remove(f"{S}/blur/000001.png"), r"blur lacks 1 of .*: 000001"),
    ("gopro", gopro, smaller(f"{S}/sharp/000001.png"), r"is 40×32, but the truth .* is 40×29"),
    ("gopro", gopro, cut(f"{S}/blur/000001.png"), r"000001\.png: the file is cut short"),
    ("gopro", gopro, write(f"{S}/sharp/000001.png", b""), "the file is empty"),
    ("gopro", gopro, write(f"{S}/sharp/000001.png", b"<html>"), "is no JPEG, PNG"),
    ("gopro", gopro, rename(f"{S}/blur/000001.png", f"{S}/blur/000001.jpg"), r"suffix \.jpg; expected \.png"),
    ("gopro", gopro, rename(f"{S}/sharp", f"{S}/shrap"), r"found in GOPR0384_11_00/ blur/, shrap/; expected"),
    ("gopro", gopro, rename("test", "tset"), r"found tset/; expected"),
    ("gopro", repacked, swap("test/input", "test/target"), "seem to be swapped"),
    ("koehler", koehler, remove("Image1/Kernel3/GroundTruth1_3_77.png"), r"lacks 1 of 197 frames: .* N 77;"),
    ("koehler", koehler, rename("Image1/Kernel12", "Image1/Kernel21"), r"no true frames for Blurry 1_12"),
    ("koehler", koehler, swap("Image1/Kernel3", "Image1/Kernel12"), r"Kernel3 is not laid out"),
    ("koehler", koehler, lambda root: fresh(root, "Image1/Kernel3/GroundTruth1_3_9.png", LARGE[:-1]),
     "true frame is 180×175, the restored picture 180×176"),
    ("koehler", koehler, lambda root: fresh(root, "Image1/Kernel3/GroundTruth1_3_9.png", LARGE[..., 0]),
     "8 bit grey; expected RGB"),
    ("koehler", koehler_mat, write("groundTruthMatFiles/GroundTruth1_2.mat", b"MATLAB? " * 40),
     "as a MATLAB file"),
    ("koehler", koehler_mat, lambda root: savemat(root / "groundTruthMatFiles/GroundTruth1_2.mat", {"x": 1}),
     "holds no such variable; expected GroundTruth"),
    ("koehler", koehler_mat, write("groundTruthMatFiles/GroundTruth1_2.mat",
     b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512)), r"version 7\.3 \(HDF5\)"),
    ("koehler-preview", koehler_preview, remove("preview_ground_truth/GroundTruth1_1_1.jpg"),
     "has no frame of image 1 for Blurry1_2.png: found an empty folder"),
    ("koehler", koehler_preview, lambda root: None, r"ground_truth/ \(which koehler-preview reads\); exp"),
    ("koehler-preview", koehler_preview, rename("BlurryImages", "Images"), r"found Images/, preview_g"),
    ("lai-uniform", lai("uniform", "kernel"), remove("synthetic_dataset/ground_truth/text_02.png"),
     r"has no text_02\.png for .*: found manmade_01"),
    ("lai-uniform", lai("uniform", "gyro"), lambda root: None, r"found uniform/manmade_01_gyro_01\.png"),
    ("lai-nonuniform", lai("uniform", "kernel"), lambda root: None,
     r"found in synthetic_dataset/ ground_truth/, uniform/; expected .*nonuniform/NAME"),
    ("lai-real", lai_real, rename("real_dataset", "photographs"), "found photographs/; expected"),
    ("realblur-j", realblur, remove("RealBlur_J_test_list.txt"), "expected RealBlur_J_test_list.txt beside"),
    ("realblur-j", realblur, write("RealBlur_J_test_list.txt", b"\xff\xfe\x00\x81"), "it is no text"),
    ("realblur-j", realblur, write("RealBlur_J_test_list.txt", b"a.png b.png c.png"), "line 1, has 3 names"),
    ("realblur-j", realblur, write("RealBlur_J_test_list.txt", b"\n"), "lists nothing"),
    ("realblur-j", realblur, write("RealBlur_J_test_list.txt", b"RealBlur_J_test_list.txt " * 2),
     "expected …/sceneNNN/blur"),
    ("realblur-j", realblur, rename(REALBLUR, "RealBlur"), "4 of 4 pictures that .* lists are not there"),
    ("realblur-r", realblur, lambda root: None, "expected RealBlur_R_test_list.txt"),
    ("hide", hide, remove("HIDE_dataset/GT/2fromGOPR2.png"), r"has no 2fromGOPR2\.png for .*1 other pict"),
    ("reds", reds, rename("val/val_sharp/000", "val/val_sharp/001"), "Cannot read the folder .*000"),
    ("rsblur", rsblur, rename("RSBlur", "Blur"), "found Blur/, RSBlur_real_test.txt; expected"),
    ("levin", levin, rename("blur/im1_kernel1_img.png", "blur/im1.png"), r"found blur/im1\.png"),
    ("photos", gopro, lambda root: None, "found test/; expected a folder of photographs"),
    ("pairs", gopro, remove(f"{S}/sharp/000002.png"), "1 pictures below .* have no partner"),
    ("gopro", lambda root: None, lambda root: None, "found an empty folder; expected"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_download_gives_one_clear_sentence(tmp_path: Path, number: int) -> None:
    """Whether it is found while listing or while scoring."""
    name, make, spoil, message = BROKEN[number]
    make(tmp_path)
    spoil(tmp_path)
    with pytest.raises(EvaluationError, match=message) as caught:
        for case in find_benchmark(name).cases(tmp_path):
            picture = read_picture(case.blurred)
            find_protocol(find_benchmark(name).protocol).score(picture, case)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and (str(tmp_path) in text or "×" in text)
    assert "Traceback" not in text and "  " not in text


def test_a_place_that_is_not_there() -> None:
    for benchmark in BENCHMARKS.values():
        assert "/no/such/place" in benchmark.survey("/no/such/place").error


def test_a_file_is_no_download_and_a_folder_no_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png", BLURRED)
    with pytest.raises(EvaluationError, match=r"a\.png is a file; expected the folder"):
        find_benchmark("gopro").cases(tmp_path / "a.png")
    with pytest.raises(EvaluationError, match="is a path; expected a benchmark, one of gopro, "):
        find_benchmark(str(tmp_path))


def test_frames_of_the_training_set_are_not_taken_for_the_test_set(tmp_path: Path) -> None:
    pair(tmp_path, "train/GOPR0372_07_00/blur/000047.png", "train/GOPR0372_07_00/sharp/000047.png")
    (missing,) = find_benchmark("gopro").survey(tmp_path).missing
    assert missing == "the whole test set; what is here is of no sequence of it: GOPR0372_07_00"


def test_unknown_names_have_near_ones() -> None:
    with pytest.raises(EvaluationError, match="'kohler'; did you mean koehler"):
        find_benchmark("kohler")
    with pytest.raises(EvaluationError, match="'lai_shfit'; did you mean lai_shift"):
        find_protocol("lai_shfit")


class Mine(Benchmark):
    name = "mine"
    title = "my own pictures"
    homepage = licence = "none"
    layout = "N.png beside N_true.png"

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        truths = sorted(Path(root).glob("*_true.png"))
        return [Case(t.stem, t.with_name(t.name.replace("_true", "")), (t,)) for t in truths]


def test_a_benchmark_of_ones_own_is_a_small_class(tmp_path: Path) -> None:
    pair(tmp_path, "7.png", "7_true.png")
    result = evaluate("input", tmp_path, benchmark=Mine(), contact_sheet=False)
    assert [score.name for score in result.scores] == ["7_true"]
    assert result.protocol.name == "gopro_rgb"


def test_datasets_says_where_and_what(tmp_path: Path) -> None:
    run = CliRunner()
    listed = run.invoke(app, ["datasets"])
    assert listed.exit_code == 0 and all(name in listed.stdout for name in BENCHMARKS)
    assert listed.stdout.strip() == list_benchmarks()
    gopro(tmp_path)
    found = run.invoke(app, ["datasets", "gopro", str(tmp_path), "--read", "--choose", "blurred=blur"])
    assert found.exit_code == 0 and describe("gopro") in found.stdout
    assert "4 of 1111 cases of GoPro" in found.stdout and "every picture can be read" in found.stdout
    assert "98 of 100 frames of test/GOPR0384_11_00" in found.stdout
    cut(f"{S}/sharp/000002.png")(tmp_path)
    text, well = look("gopro", tmp_path, read=True)
    assert not well and "broken: Cannot read" in text and "000002.png" in text
    missing = run.invoke(app, ["datasets", "koehler", str(tmp_path)])
    assert missing.exit_code == 1 and "found test/; expected BlurryImages/" in missing.stdout
    homeless = run.invoke(app, ["datasets", "gopro", "--read"])
    assert homeless.exit_code == 1 and "need the PATH of a download" in homeless.stderr
    assert parse_choices(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    refused = run.invoke(app, ["datasets", "gopro", str(tmp_path), "--choose", "blur"])
    assert refused.exit_code == 1 and "expected KEY=VALUE" in refused.stderr
