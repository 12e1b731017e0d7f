"""Is there motion blur? Decisions of `estimate_photograph` on photographs whose blur is known.

    python benchmarks/confidence.py --photos FOLDER -o RESULTS.jsonl [--half 0|1] [--count 12] [--side 400]

Every photograph (half 0 are the even ones of the sorted names, half 1 the odd ones; `--count` of them, evenly
spread) is taken as it is, and blurred by camera shake, straight motion, a rotating camera, a disc and a
Gaussian in linear light, each with noise, rounded to 8 bit. Besides, without photographs: white noise, one
colour, a gradient, text, and text that was shaken. What is in the results already is not done again; the
table at the end is of all that is there.
"""

import argparse
import html
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyvips
import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear import read_photo
from unsmear.basis.kernels import camera_shake, defocus, identity, linear_motion, matern_paths, shake_path
from unsmear.basis.masks import camera_homographies, camera_motion_field
from unsmear.blurring import blur, to_linear, to_srgb
from unsmear.estimation.photograph import alikeness, estimate_photograph, shape_of

KINDS = ("sharp", "disc", "gauss", "shake", "straight", "camera", "slight")
MADE = ("noise", "flat", "gradient", "text", "text shaken")
LENGTHS = {"slight": (2.0, 5.0)}  # pixels; others 6 to 30
TEXT = "Sphinx of black quartz, judge my vow. The quick brown fox jumps over the lazy dog; pack my box. " * 9


def gauss(spread: float) -> np.ndarray:
    reach = int(np.ceil(3.5 * spread))
    row = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * spread**2))
    return (np.outer(row, row) / row.sum() ** 2).astype(np.float32)


def blurred(kind: str, sharp: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """The photograph, kernels, masks, and the length (diameter, 4 standard deviations) of the blur."""
    height, width = sharp.shape[-2:]
    masks = torch.ones(1, height, width)
    length = float(np.exp(rng.uniform(*np.log(LENGTHS.get(kind, (6.0, 30.0))))))
    if kind in ("shake", "slight", "text shaken"):
        kernels = camera_shake(rng, 65, length=length)[None]
    elif kind == "straight":
        kernels = linear_motion(length, float(rng.uniform(0, 180)), 65)[None]
    elif kind == "camera":
        focal = max(height, width) * float(rng.uniform(0.7, 2))
        sway = shake_path(rng, length=length) / focal
        roll = matern_paths(rng, 1)[: len(sway), 0]
        roll *= float(rng.uniform(0, 2)) * length / focal / max(float(np.ptp(roll)), 1e-9)
        poses = camera_homographies(
            np.stack([sway[:, 0], sway[:, 1], roll], 1), focal=focal, centre=(height / 2, width / 2)
        )
        kernels, field = camera_motion_field(poses, height, width, grid=(4, 4), largest=65)
        masks = torch.from_numpy(field)
    elif kind == "disc":
        length = float(rng.uniform(2.4, 12))
        kernels = defocus(length / 2)[None]
    elif kind == "gauss":
        length = float(rng.uniform(3.2, 14))
        kernels = gauss(length / 4)[None]
    else:
        length, kernels = 0.0, identity()[None]
    kernels = torch.from_numpy(np.ascontiguousarray(kernels))
    picture = to_srgb(blur(to_linear(sharp), kernels, masks).clamp(0, 1))
    noise = float(rng.uniform(0, 0.012)) * rng.standard_normal(picture.shape)
    picture = picture + torch.from_numpy(noise.astype(np.float32))
    return (picture.clamp(0, 1) * 255).round() / 255, kernels, masks, length


def made(kind: str, rng: np.random.Generator, side: int) -> Tensor:
    if kind == "noise":
        return torch.from_numpy(rng.uniform(0, 1, (3, side, side)).astype(np.float32))
    if kind == "flat":
        return torch.from_numpy(rng.uniform(0, 1, (3, 1, 1)).astype(np.float32)).expand(3, side, side).clone()
    if kind == "gradient":
        ends = torch.from_numpy(rng.uniform(0, 1, (2, 3, 1, 1)).astype(np.float32))
        part = torch.linspace(0, 1, side)[None, None, :]
        return (ends[0] * (1 - part) + ends[1] * part).expand(3, side, side).clone()
    start = int(rng.integers(len(TEXT) // 2))
    text = pyvips.Image.text(html.escape(TEXT[start:]), font="serif 12", dpi=110, width=side)
    ink = torch.from_numpy(text.numpy().reshape(text.height, text.width).astype(np.float32) / 255)[
        :side, :side
    ]
    ink = F.pad(ink, (0, side - ink.shape[1], 0, side - ink.shape[0]))
    return (0.95 - 0.85 * ink).expand(3, side, side).clone()


def tasks(options: argparse.Namespace):
    paths = sorted(path for path in options.photos.iterdir() if path.is_file())[options.half :: 2]
    for path in paths[:: max(1, len(paths) // options.count)][: options.count]:
        for kind in KINDS:
            yield path.name, kind, path
    for number in range(options.made):
        for kind in MADE:
            yield f"made {number}", kind, None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--half", type=int, default=1, choices=(0, 1))
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--made", type=int, default=3)
    parser.add_argument("--side", type=int, default=400, help="longer side in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    options.output.touch()
    done = [json.loads(line) for line in options.output.read_text().splitlines()]
    for name, kind, path in tasks(options):
        if any((item["name"], item["kind"]) == (name, kind) for item in done):
            continue
        rng = np.random.default_rng([sum(name.encode()), (*KINDS, *MADE).index(kind), options.half])
        if path is None:
            sharp = made(kind, rng, 3 * options.side // 4)
        else:
            sharp = read_photo(path).tensor()
            scale = min(1.0, options.side / max(sharp.shape[-2:]))
            sharp = F.interpolate(sharp[None], scale_factor=scale, mode="bicubic", antialias=True)[0]
        picture, kernels, masks, length = blurred(kind, sharp.clamp(0, 1), rng)
        if kind in ("noise", "flat"):
            picture = (sharp * 255).round() / 255
        started = time.process_time()
        fit = estimate_photograph(picture, restore=False)
        item = {"name": name, "kind": kind, "length": length, "verdict": fit.verdict}
        item |= {"seconds": time.process_time() - started, "size": list(picture.shape[-2:]), "regions": []}
        for region in fit.regions:
            facts = {"weight": region.weight, "evidence": region.evidence}
            if region.kernel is not None:
                middle = (region.top + region.side // 2, region.left + region.side // 2)
                truth = torch.einsum("b,bij->ij", masks[:, middle[0], middle[1]], kernels)
                shape = shape_of(region.kernel)
                facts |= {"spread": shape.spread, "thinness": shape.thinness, "length": shape.length}
                facts |= {"like_truth": alikeness(region.kernel, truth)}
            item["regions"].append({key: round(value, 4) for key, value in facts.items()})
        done.append(item)
        with options.output.open("a") as file:
            file.write(json.dumps(item) + "\n")
    table(done)


def table(items: list[dict]) -> None:
    print("| blur | pictures | motion | none | cannot tell | kernel like the truth, by confidence | s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    groups = defaultdict(list)
    for item in items:
        groups[item["kind"]].append(item)
    for kind in (*KINDS, *MADE):
        group = groups[kind]
        if not group:
            continue
        counts = [
            sum(item["verdict"] == verdict for item in group) for verdict in ("motion", "none", "unknown")
        ]
        pairs = [
            (region["weight"] * region["evidence"], region["like_truth"])
            for item in group
            if item["verdict"] == "motion"
            for region in item["regions"]
            if "like_truth" in region
        ]
        total = sum(weight for weight, _ in pairs)
        like = f"{sum(weight * value for weight, value in pairs) / total:.2f}" if total else "–"
        seconds = float(np.median([item["seconds"] for item in group]))
        print(f"| {kind} | {len(group)} | {' | '.join(map(str, counts))} | {like} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
