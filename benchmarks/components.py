"""Do the low-rank module's components follow the direction and the strength of the blur?

    python benchmarks/components.py --sharp PHOTOS [--count 24] [--picture FILE.png]

The paper supposes so (section 3.2): each component of rank one stands for motions of one kind. Photographs of
256×256 are blurred by straight motion of 4 directions × 3 lengths and shown to sglrn-t of the package. Its
module writes the features F (N×C) of the bottleneck as L = Q P, Q orthonormal (N×K), P = QᵀF (K×C); component
k has the energy ‖P_k‖², taken here as the logarithm of its share of ‖P‖².

parts       how much of the variance of these K numbers each factor explains (analysis of variance over all
            photographs × directions × lengths, mean over the components; the rest is interaction); of the
            direction also the largest of the K parts
decoding    direction (4 classes, chance 25 %) and length (R², from its logarithm) found from the K numbers by
            ridge regression, on photographs that were left out; beside it the same from the energies of K of
            the C channels of F itself, drawn at random (mean of 20 draws): what is there without the module

--picture draws the maps of the 8 components with the most energy for one picture (of examples/) whose left
half moved horizontally and whose right half moved vertically, and for the same picture without any blur.
"""

import argparse
from pathlib import Path

import numpy as np
import pyvips
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unsmear import read_photo
from unsmear.basis.kernels import linear_motion
from unsmear.blurring import blur
from unsmear.models.low_rank import LowRankModule
from unsmear.photo import find_photos

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "unsmear" / "weights" / "sglrn-t.safetensors"
DIRECTIONS, LENGTHS, SIDE = (0.0, 45.0, 90.0, 135.0), (7.0, 13.0, 23.0), 256
RIDGE, DRAWS, SHOWN = 1.0, 20, 8
Floats = NDArray[np.float64]


class Seen:
    """A network whose module's input is kept."""

    def __init__(self) -> None:
        from unsmear.models.checkpoints import load_checkpoint

        self.model = load_checkpoint(WEIGHTS).eval()
        (self.module,) = (m for m in self.model.modules() if isinstance(m, LowRankModule))
        self.module.register_forward_pre_hook(lambda _, given: setattr(self, "features", given[0]))
        self.features = torch.empty(0)

    def components(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q as maps (K, h, w), P (K, C) and F (C, h, w) of one picture (3, H, W)."""
        with torch.inference_mode():
            self.model(picture[None])
            maps, scores = (x[0].double() for x in self.module.project_from(self.features))
        s, f = scores.flatten(1).T, maps.flatten(1).T
        q = torch.linalg.qr(s).Q
        return q.T.reshape(scores.shape), q.T @ f, maps


def straight(picture: Tensor, angle: float, length: float) -> Tensor:
    kernel = torch.from_numpy(linear_motion(length, angle, 2 * int(length / 2 + 2) + 1))
    return blur(picture, kernel[None], torch.ones(1, *picture.shape[-2:])).clamp(0, 1)


def crops(folder: Path, count: int) -> list[Tensor]:
    """Middles of photographs, spread over the folder, reduced to SIDE on their shorter side."""
    photos = find_photos(folder)
    chosen = [photos[(2 * i + 1) * len(photos) // (2 * count)] for i in range(min(count, len(photos)))]
    result = []
    for path in chosen:
        x = read_photo(path).tensor()
        x = F.interpolate(x[None], scale_factor=SIDE / min(x.shape[-2:]), mode="bicubic", antialias=True)[0]
        top, left = ((length - SIDE) // 2 for length in x.shape[-2:])
        result.append(x[:, top : top + SIDE, left : left + SIDE].clamp(0, 1))
    return result


def parts(values: Floats) -> dict[str, Floats]:
    """η² of each factor of values (photographs, directions, lengths, K), K numbers each."""
    centred = values - values.mean((0, 1, 2))
    total = (centred**2).mean((0, 1, 2))
    names = {"photograph": (1, 2), "direction": (0, 2), "length": (0, 1)}
    return {name: (centred.mean(axes) ** 2).mean(0) / total for name, axes in names.items()}


def decoded(values: Floats) -> tuple[float, float]:
    """Accuracy of the direction and R² of log length on photographs that were left out, a sixth at a time."""
    photos, directions, lengths, width = values.shape
    x = values - values.mean((1, 2), keepdims=True)  # what the photograph itself looks like is taken off
    x = x / x.std((0, 1, 2))
    one_hot = np.broadcast_to(np.eye(directions)[None, :, None], (photos, directions, lengths, directions))
    logs = np.broadcast_to(np.log(LENGTHS)[None, None, :, None], (photos, directions, lengths, 1))
    target = np.concatenate([one_hot, logs - logs.mean()], -1)
    hits, error = [], []
    for fold in range(6):
        out = np.arange(photos) % 6 == fold
        a, b = x[~out].reshape(-1, width), target[~out].reshape(-1, directions + 1)
        mean = b.mean(0)
        weights = np.linalg.solve(a.T @ a + RIDGE * np.eye(width), a.T @ (b - mean))
        found = x[out] @ weights + mean
        hits.append(found[..., :directions].argmax(-1) == np.arange(directions)[None, :, None])
        error.append((found[..., -1] - target[out][..., -1]) ** 2)
    return float(np.concatenate(hits).mean()), float(1 - np.concatenate(error).mean() / logs.var())


def drawn(seen: Seen, picture: Tensor) -> pyvips.Image:
    """Rows: the picture unblurred and blurred in two directions; columns: itself, then its components."""
    half = picture.shape[-1] // 2
    moved = picture.clone()
    moved[..., :half] = straight(picture, 0.0, LENGTHS[1])[..., :half]
    moved[..., half:] = straight(picture, 90.0, LENGTHS[1])[..., half:]
    order = seen.components(moved)[1].square().sum(1).argsort(descending=True)[:SHOWN]
    rows = []
    for x in (picture, moved):
        maps = seen.components(x)[0][order]
        maps = 0.5 + 0.5 * maps / maps.abs().amax((1, 2), keepdim=True)
        wide = F.interpolate(maps[None].float(), size=x.shape[-2:], mode="nearest")[0]
        rows.append(torch.cat([x, *(m.expand(3, -1, -1) for m in wide)], 2))
    image = (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return pyvips.Image.new_from_array(image, interpretation="srgb")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sharp", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen = Seen()
    energies, channels = [], []
    for picture in crops(options.sharp, options.count):
        for angle in DIRECTIONS:
            for length in LENGTHS:
                _, p, maps = seen.components(straight(picture, angle, length))
                energies.append((p.square().sum(1) / p.square().sum()).log().numpy())
                power = maps.square().sum((1, 2))
                channels.append((power / power.sum()).log().numpy())
    shape = (-1, len(DIRECTIONS), len(LENGTHS), len(energies[0]))
    values, plain = (
        np.stack(energies).reshape(shape),
        np.stack(channels).reshape(*shape[:3], len(channels[0])),
    )
    rng = np.random.default_rng(0)
    draws = [rng.choice(plain.shape[-1], values.shape[-1], replace=False) for _ in range(DRAWS)]
    by_channels = np.mean([decoded(plain[..., draw]) for draw in draws], 0)
    print("| energies of | " + " | ".join(f"part of the {name}" for name in parts(values)), end="")
    print(" | at most of the direction | direction, right | length, R² |")
    print("|---" + "|---:" * 6 + "|")
    for name, data, (right, r2) in (
        (f"{values.shape[-1]} components", values, decoded(values)),
        (f"{values.shape[-1]} of {plain.shape[-1]} channels", plain, tuple(by_channels)),
    ):
        explained = parts(data)
        cells = " | ".join(f"{each.mean():.0%}" for each in explained.values())
        print(f"| {name} | {cells} | {explained['direction'].max():.0%} | {right:.0%} | {r2:.2f} |")
    if options.picture:
        photo = read_photo(next(iter(find_photos(ROOT / "examples" / "sharp")))).tensor()
        top, left = ((side - SIDE) // 2 for side in photo.shape[-2:])
        drawn(seen, photo[:, top : top + SIDE, left : left + SIDE]).write_to_file(str(options.picture))


if __name__ == "__main__":
    main()
