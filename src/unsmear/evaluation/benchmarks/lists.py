"""Sets whose pairs stand in list files, one "TRUTH BLURRED" a line: RealBlur (2020) and RSBlur (2022)."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, few, not_swapped, present


def read_list(file: Path, root: Path) -> list[tuple[PurePosixPath, Path, Path]]:
    """(path of the blurred picture as listed, blurred, truth) for every line "TRUTH BLURRED".

    Raises EvaluationError for a file that cannot be read, a line of another form, or missing pictures.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EvaluationError(f"Cannot read the list {file}: {reason}; download it again.") from error
    pairs, missing = [], []
    for number, line in enumerate(lines, start=1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise EvaluationError(
                f'{file}, line {number}, has {len(names)} names; expected "TRUTH BLURRED", paths in {root}.'
            )
        truth, blurred = (root / name for name in names)
        missing += [str(path) for path in (truth, blurred) if not path.is_file()]
        pairs.append((PurePosixPath(names[1]), blurred, truth))
    if not pairs:
        raise EvaluationError(f'{file} lists nothing; expected lines "TRUTH BLURRED".')
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {2 * len(pairs)} pictures that {file} lists are not there: {few(missing)}; "
            "unpack the download beside the list."
        )
    return pairs


class _RealBlur(Benchmark):
    """Pairs of one lens, two cameras: long and short exposure, aligned by their authors."""

    homepage = "http://cg.postech.ac.kr/research/realblur (RealBlur.zip)"
    licence = "CC BY 4.0"
    protocol = "realblur_ecc"
    count = 980
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"split": ("test", "train")}
    letter: ClassVar[str]

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """The pairs of the list of a split (test unless told otherwise), in its order, grouped by scene."""
        self.choose(choice)
        root = present(root)
        name = f"RealBlur_{self.letter}_{choice.get('split', 'test')}_list.txt"
        top = next((top for top in (root, root / "RealBlur", root.parent) if (top / name).exists()), None)
        if top is None:
            raise self.wrong(root)
        cases = []
        for listed, blurred, truth in read_list(top / name, top):
            if len(listed.parts) < 3:
                raise EvaluationError(f"{top / name} lists {listed}; expected …/sceneNNN/blur/blur_N.png.")
            scene = listed.parts[-3]
            cases.append(Case(f"{scene}/{listed.stem}", blurred, (truth,), scene))
        return not_swapped(cases)


class RealBlurJ(_RealBlur):
    """JPEGs of the camera."""

    name = "realblur-j"
    title = "RealBlur-J"
    letter = "J"
    layout = """
        RealBlur_J_test_list.txt
        beside RealBlur-J_ECC_IMCORR_centroid_itensity_ref/sceneNNN/blur/blur_N.png and gt/gt_N.png
    """


class RealBlurR(_RealBlur):
    """Developed from raw, dark, denoised."""

    name = "realblur-r"
    title = "RealBlur-R"
    letter = "R"
    layout = """
        RealBlur_R_test_list.txt
        beside RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/sceneNNN/blur/blur_N.png and gt/gt_N.png
    """


class RSBlur(Benchmark):
    """Real blur beside the sharp video that it would be the mean of; 1920×1200."""

    name = "rsblur"
    title = "RSBlur"
    homepage = (
        "http://cg.postech.ac.kr/research/rsblur (RSBlur.zip; the lists: github rimchang/RSBlur, datalist/)"
    )
    licence = "CC BY 4.0"
    layout = """
        RSBlur/NNNN/NNNNNN/real_blur/real_blur.png and gt/gt_sharp.png
        beside RSBlur_real_test.txt, or datalist/RSBlur/RSBlur_real_test.txt
    """
    protocol = "realblur_ecc"
    count = 3360
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"split": ("test", "val", "train")}

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """The pairs of the list of a split (test unless told otherwise), in its order, grouped by scene."""
        self.choose(choice)
        root = present(root)
        name = f"RSBlur_real_{choice.get('split', 'test')}.txt"
        tops = [top for top in (root, root.parent) if (top / "RSBlur").is_dir()]
        places = [
            top / place / name for top in tops for place in ("", "RSBlur", "datalist/RSBlur", "datalist")
        ]
        file = next((place for place in places if place.exists()), None)
        if file is None:
            raise self.wrong(root)
        cases = []
        for listed, blurred, truth in read_list(file, tops[0]):
            if len(listed.parts) < 4:
                raise EvaluationError(
                    f"{file} lists {listed}; expected RSBlur/NNNN/NNNNNN/real_blur/real_blur.png."
                )
            scene, shot = listed.parts[-4:-2]
            cases.append(Case(f"{scene}/{shot}", blurred, (truth,), scene))
        return not_swapped(cases)
