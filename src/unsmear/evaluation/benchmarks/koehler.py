"""Köhler et al. 2012: 4 printed photographs × 12 recorded camera shakes, each with the frames of a video.

The published score takes the best of all frames of a picture, `koehler`. Where only one frame an image is at
hand, as on the benchmark's web page, `koehler-preview` reads it: another figure, for comparisons at home.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, few, listing, pictures, present

IMAGES, TRAJECTORIES = 4, 12

# Frames of (image, trajectory), from deepinv's reader of the same archives; all others have 199.
FRAMES = 199
OTHER_FRAMES: Mapping[tuple[int, int], int] = {
    (2, 11): 200,
    (1, 10): 198,
    (1, 12): 198,
    (2, 10): 198,
    (3, 7): 198,
    (3, 12): 198,
    (4, 12): 198,
}


def used_frames(image: int, trajectory: int) -> list[int]:
    """The numbers, from 1, of the frames that the authors' evaluation code goes through.

    For (1, 3) it is 1 to 29 and 31 to 198: their remark is that a frame is missing.
    """
    if (image, trajectory) == (1, 3):
        return [*range(1, 30), *range(31, 199)]
    return list(range(1, OTHER_FRAMES.get((image, trajectory), FRAMES) + 1))


class Koehler(Benchmark):
    """48 blurred pictures of 800×800, each with about 199 true frames as PNG, or all of them in one .mat."""

    name = "koehler"
    title = "Köhler 2012"
    homepage = "http://people.kyb.tuebingen.mpg.de/rolfk/BenchmarkECCV2012 (zip files)"
    licence = "none stated; a benchmark for research"
    layout = """
        BlurryImages/BlurryI_J.png (I 1 to 4, J 1 to 12)
        beside ImageI/KernelJ/GroundTruthI_J_N.png (N 1 to about 199)
        or groundTruthMatFiles/GroundTruthI_J.mat
    """
    protocol = "koehler"
    count = IMAGES * TRAJECTORIES

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every blurred picture of an image whose truth is there, grouped by trajectory.

        Images whose archive of true frames was not unpacked are left out, and `survey` names them; a
        trajectory or a frame that is missing within an image is an error.
        """
        self.choose(choice)
        root = present(root)
        blurred = blurry_images(self, root)
        cases, without = [], []
        for (image, trajectory), path in blurred.items():
            truth = self._truth(root, image, trajectory)
            if truth is None:
                without.append((image, trajectory))
            else:
                cases.append(Case(path.stem, path, truth, f"trajectory {trajectory:02d}"))
        started = {int(case.name[6]) for case in cases}
        lonely = [f"{image}_{trajectory}" for image, trajectory in without if image in started]
        if lonely:
            raise EvaluationError(
                f"{root} has no true frames for Blurry {few(lonely)}, though it has some of the same image; "
                f"expected Image{lonely[0].replace('_', '/Kernel')}/; unpack its archive again."
            )
        if not cases:
            preview = (root / "preview_ground_truth").is_dir()
            raise self.wrong(root, listing(root) + " (which koehler-preview reads)" * preview)
        return cases

    def missing(self, cases: Sequence[Case]) -> Iterable[str]:
        """Images that are not there."""
        for image in range(1, IMAGES + 1):
            found = sum(case.name.startswith(f"Blurry{image}_") for case in cases)
            if found < TRAJECTORIES:
                yield f"{TRAJECTORIES - found} of {TRAJECTORIES} trajectories of image {image}"

    def _truth(self, root: Path, image: int, trajectory: int) -> tuple[Path, ...] | None:
        stem = f"GroundTruth{image}_{trajectory}"
        for file in (root / "groundTruthMatFiles" / f"{stem}.mat", root / f"{stem}.mat"):
            if file.is_file():
                return (file,)
        for top in (root, root / f"Image{image}", root / f"GroundTruth_pngs_Image{image}"):
            folder = top / f"Image{image}" / f"Kernel{trajectory}"
            if folder.is_dir():
                return self._frames(folder, stem, used_frames(image, trajectory))
        folder = root / f"GroundTruth_pngs_Image{image}" / f"Kernel{trajectory}"
        return self._frames(folder, stem, used_frames(image, trajectory)) if folder.is_dir() else None

    def _frames(self, folder: Path, stem: str, numbers: Sequence[int]) -> tuple[Path, ...]:
        found = pictures(folder)
        missing = [str(number) for number in numbers if f"{stem}_{number}" not in found]
        if len(missing) == len(numbers):
            raise self.wrong(folder)
        if missing:
            raise EvaluationError(
                f"{folder} lacks {len(missing)} of {len(numbers)} frames: {stem}_N.png for N {few(missing)}; "
                "the score is the best of all frames, so unpack the archive again."
            )
        return tuple(found[f"{stem}_{number}"] for number in numbers)


class KoehlerPreview(Benchmark):
    """The same blurred pictures with one true frame an image, a JPEG from the benchmark's web page."""

    name = "koehler-preview"
    title = "Köhler 2012, one preview frame"
    homepage = "http://people.kyb.tuebingen.mpg.de/rolfk/BenchmarkECCV2012"
    licence = "none stated; a benchmark for research"
    layout = """
        BlurryImages/BlurryI_J.png (I 1 to 4, J 1 to 12)
        beside preview_ground_truth/GroundTruthI_1_1.jpg
    """
    protocol = "koehler_preview"
    count = IMAGES * TRAJECTORIES

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every blurred picture with the one frame of its image, grouped by trajectory."""
        self.choose(choice)
        root = present(root)
        folder = root / "preview_ground_truth"
        if not folder.is_dir():
            raise self.wrong(root)
        truths = {
            int(match[1]): path
            for stem, path in pictures(folder, (".jpg", ".png")).items()
            if (match := re.fullmatch(r"GroundTruth(\d)_\d+_\d+", stem))
        }
        cases = []
        for (image, trajectory), path in blurry_images(self, root).items():
            if image not in truths:
                raise EvaluationError(
                    f"{folder} has no frame of image {image} for {path.name}: found {listing(folder)}; "
                    f"expected GroundTruth{image}_1_1.jpg."
                )
            cases.append(Case(path.stem, path, (truths[image],), f"trajectory {trajectory:02d}"))
        return cases


def blurry_images(benchmark: Benchmark, root: Path) -> dict[tuple[int, int], Path]:
    """(image, trajectory) -> file, in order; the folder BlurryImages or the root itself."""
    folder = root / "BlurryImages"
    found = {}
    for stem, path in pictures(folder if folder.is_dir() else root).items():
        if match := re.fullmatch(r"Blurry([1-4])_([1-9]|1[0-2])", stem):
            found[int(match[1]), int(match[2])] = path
    if not found:
        raise benchmark.wrong(root)
    return dict(sorted(found.items()))
