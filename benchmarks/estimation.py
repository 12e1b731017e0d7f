"""Kernels from a sharp and a blurred photograph: how right, and how fast (docs/ESTIMATION.md).

    python benchmarks/estimation.py [--data DIR] [--only levin lai saturated …] [--picture FILE]

DIR holds the development images: pairs/Levin, pairs/Lai/synthetic_dataset, pairs/GoPro, kernels. Without it
"synthetic" and "speed" run, on the astronaut that comes with scikit-image. One thread; seconds are processor
seconds; every table is printed in Markdown. "counts" draws the figure of redundancy.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.basis.kernels import camera_shake
from unsmear.basis.masks import smooth_masks
from unsmear.blurring import blur
from unsmear.estimation.known_masks import Problem, estimate_kernels, reblur_psnr
from unsmear.estimation.patches import gather_patches, patch_kernels, singular_values
from unsmear.estimation.priors import Prior
from unsmear.estimation.unknown_masks import compare_counts, estimate_basis
from unsmear.photo import read_photo

LARGEST_CVXPY = 10**7  # entries of its matrix a colour; beyond it takes minutes and gigabytes
FINE = 8  # sub-pixel shifts of the similarity: 1/8
COUNTS = (1, 2, 4, 9, 16, 25)


def read(path: Path, *, grey: bool = False) -> Tensor:
    photo = read_photo(path).tensor()
    return photo.mean(0, keepdim=True) if grey else photo


# Similarity of kernels


def correlation(kernel: Tensor, other: Tensor, fine: int) -> Tensor:
    """Normalised correlation at every shift by 1/fine of a pixel; zero shift at [0, 0]."""
    size = 2 * max(kernel.shape[-1], other.shape[-1])
    product = torch.fft.fft2(kernel, s=(size, size)) * torch.fft.fft2(other, s=(size, size)).conj()
    wide = F.pad(torch.fft.fftshift(product), (size * (fine - 1) // 2,) * 4)
    values = torch.fft.ifft2(torch.fft.ifftshift(wide)).real * fine**2
    return values / (kernel.norm() * other.norm())


def similarity(kernel: Tensor, other: Tensor, *, fine: int = 1) -> float:
    """Largest normalised correlation over all shifts (Hu and Yang 2012): by whole pixels, or by 1/fine."""
    return float(correlation(kernel.double(), other.double(), fine).max())


def best_shift(kernel: Tensor, other: Tensor, *, fine: int = 20) -> tuple[float, float]:
    """How far the kernel lies from the other one, (down, right) in pixels."""
    values = correlation(kernel.double(), other.double(), fine)
    place = divmod(int(values.argmax()), values.shape[1])
    half = values.shape[0] // 2
    down, right = ((index + half) % (2 * half) - half for index in place)
    return down / fine, right / fine


def shifted(picture: Tensor, down: float, right: float) -> Tensor:
    """Content moved by a part of a pixel in Fourier space; the border wraps round."""
    y = torch.fft.fftfreq(picture.shape[-2], dtype=torch.float64)[:, None]
    x = torch.fft.fftfreq(picture.shape[-1], dtype=torch.float64)
    turn = torch.exp(-2j * torch.pi * (y * down + x * right))
    return torch.fft.ifft2(torch.fft.fft2(picture.double()) * turn).real.float()


# Levin 2009


def levin(data: Path) -> None:
    folder = data / "pairs" / "Levin"
    sharp = [read(folder / f"sharp/im{n}.png")[:1] for n in range(1, 5)]
    print(
        "\nLevin, sharp given. single: one pair, mean of four; joint: the four pairs, aligned, as channels\n"
    )
    print(
        "| kernel | single: similarity | to 1/8 px | re-blur dB | joint: similarity | to 1/8 px | re-blur dB "
        "| shipped kernel, re-blur dB | s |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    ridge = Prior(name="ridge", weight=3.0)
    for number in range(1, 9):
        blurred = [read(folder / f"blur/im{n}_kernel{number}_img.png")[:1] for n in range(1, 5)]
        shipped = read(folder / f"kernels/kernel{number}.png")[0].double()
        started = time.process_time()
        fits = [estimate_kernels(u, v, None, 31, prior=ridge) for u, v in zip(sharp, blurred, strict=True)]
        seconds = (time.process_time() - started) / 4
        kernels = [fit.kernels[0].double() for fit in fits]
        psnr = [reblur_psnr(u, v, k[None], None) for u, v, k in zip(sharp, blurred, kernels, strict=True)]
        # Some of the shipped files are turned by half: convolution against correlation.
        turned = max((shipped, shipped.flip(0, 1)), key=lambda k: similarity(kernels[0], k))
        centred = torch.zeros(31, 31, dtype=torch.float64)
        edge = (31 - len(turned)) // 2
        centred[edge : 31 - edge, edge : 31 - edge] = turned / turned.sum()
        # Each pair is displaced by its own part of a pixel: found against the first pair's estimate, so that
        # the shipped kernel decides nothing but where all four together lie.
        smooth = Prior(name="ridge", weight=30.0)
        rough = [estimate_kernels(u, v, None, 31, prior=smooth) for u, v in zip(sharp, blurred, strict=True)]
        common = best_shift(rough[0].kernels[0], centred)
        apart = [best_shift(fit.kernels[0], rough[0].kernels[0]) for fit in rough]
        away = [(down + common[0], right + common[1]) for down, right in apart]
        inside = (slice(None), slice(10, -10), slice(10, -10))
        u = torch.cat([shifted(p, -d, -r)[inside] for p, (d, r) in zip(sharp, away, strict=True)])
        v = torch.cat([p[inside] for p in blurred])
        joint = estimate_kernels(
            u, v, None, 31, domain="gradient", prior=Prior(name="ridge", weight=20.0)
        ).kernels[0]
        joint = joint.double()
        print(
            f"| {number} | {statistics.fmean(similarity(k, turned) for k in kernels):.3f} "
            f"| {statistics.fmean(similarity(k, turned, fine=FINE) for k in kernels):.3f} "
            f"| {statistics.fmean(psnr):.1f} | {similarity(joint, turned):.3f} "
            f"| {similarity(joint, turned, fine=FINE):.3f} | {reblur_psnr(u, v, joint[None], None):.1f} "
            f"| {reblur_psnr(u, v, centred[None], None):.1f} | {seconds:.1f} |",
            flush=True,
        )


# Lai 2016, uniform


def lai(data: Path) -> None:
    folder = data / "pairs" / "Lai" / "synthetic_dataset"
    sizes = (25, 45, 49, 69)
    print("\nLai uniform, sharp given: estimated on the middle 512×512, mean of the colours, scored on all\n")
    print(
        "| kernel | K | picture | re-blur dB | shipped kernel: re-blur dB | similarity to it "
        "| gap / objective | s |\n|---:|---:|---|---:|---:|---:|---:|---:|"
    )
    truths = sorted((folder / "ground_truth").glob("*.png"))
    for number, size in enumerate(sizes, 1):
        whole = torch.from_numpy(np.load(data / "kernels" / f"kernel_0{number}_est.npy")).double()
        edge = (len(whole) - size) // 2
        shipped = whole[edge : len(whole) - edge, edge : len(whole) - edge]
        for truth in truths:
            sharp, blurred = read(truth), read(folder / "uniform" / f"{truth.stem}_kernel_0{number}.png")
            top, left = ((length - 512) // 2 for length in sharp.shape[-2:])
            u, v = (p.mean(0, keepdim=True)[:, top : top + 512, left : left + 512] for p in (sharp, blurred))
            started = time.process_time()
            fit = estimate_kernels(u, v, None, size, domain="gradient")
            seconds = time.process_time() - started
            kernel = fit.kernels[0].double()
            # The shipped estimates are stored for convolution or correlation; take what fits.
            turned = max((shipped, shipped.flip(0, 1)), key=lambda k: similarity(kernel, k))
            down, right = (round(part) for part in best_shift(kernel, turned, fine=2))
            moved = torch.roll(turned, (down, right), (0, 1))
            moved = moved / moved.sum()
            print(
                f"| {number} | {size} | {truth.stem} | {reblur_psnr(sharp, blurred, fit.kernels, None):.1f} "
                f"| {reblur_psnr(sharp, blurred, moved[None], None):.1f} | {similarity(kernel, turned):.4f} "
                f"| {fit.gap / fit.objective:.0e} | {seconds:.1f} |",
                flush=True,
            )


def saturated(data: Path) -> None:
    """Lai's saturated_01, kernel 1, without what is cut off; its blurred picture is brighter by a gain."""
    folder = data / "pairs" / "Lai" / "synthetic_dataset"
    u = read(folder / "ground_truth/saturated_01.png")[1:2]
    v = read(folder / "uniform/saturated_01_kernel_01.png")[1:2]
    shipped = torch.from_numpy(np.load(data / "kernels/kernel_01_est.npy")).double()[48:73, 48:73].flip(0, 1)
    shipped = shipped / shipped.sum()
    top, left = ((length - 512) // 2 for length in u.shape[-2:])
    middle = (slice(None), slice(top, top + 512), slice(left, left + 512))
    print("\nLai, saturated_01, kernel 1, green, pixels from 0.95 on left out\n")
    print(
        "| gain | similarity | ours, re-blur dB | shipped kernel, re-blur dB | s |\n"
        "|---:|---:|---:|---:|---:|"
    )
    for gain in (1.5, 1.6, 1.8, 2.0):
        w = torch.where(v >= 0.95, torch.ones_like(v), v / gain)
        started = time.process_time()
        fit = estimate_kernels(u[middle], w[middle], None, 25, iterations=200, saturated=0.95)
        seconds = time.process_time() - started
        ours, theirs = (reblur_psnr(u, w, k, None, saturated=0.95) for k in (fit.kernels, shipped[None]))
        like = similarity(fit.kernels[0].double(), shipped)
        print(f"| {gain} | {like:.3f} | {ours:.1f} | {theirs:.1f} | {seconds:.1f} |", flush=True)


# Synthetic, not uniform


def astronaut(side: int) -> Tensor:
    from skimage import data

    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    return picture[:, :side, 100 : 100 + side]


def truth_of(bases: int, side: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    kernels = np.stack([camera_shake(generator, size, length=0.75 * size) for _ in range(bases)])
    return torch.from_numpy(kernels), torch.from_numpy(smooth_masks(generator, bases, side, side))


def kernel_error(kernels: Tensor, masks: Tensor, true_kernels: Tensor, true_masks: Tensor) -> Tensor:
    """½ Σ_p |Σ_b k_b m_b(i) − truth| at every third pixel at least K//2 from the border, (h, w)."""
    margin = kernels.shape[-1] // 2
    inside = (slice(None), slice(margin, -margin, 3), slice(margin, -margin, 3))
    field = torch.einsum("bpq,bhw->hwpq", kernels, masks[inside])
    return 0.5 * (field - torch.einsum("bpq,bhw->hwpq", true_kernels, true_masks[inside])).abs().sum((-2, -1))


def textured(sharp: Tensor, size: int, least: float = 0.03) -> Tensor:
    """Where the root mean square step between neighbours over 2K+1 pixels is at least 0.03."""
    grey = sharp.mean(0)
    steps = F.pad((grey[1:, :-1] - grey[:-1, :-1]) ** 2 + (grey[:-1, 1:] - grey[:-1, :-1]) ** 2, (0, 1, 0, 1))
    mean = F.avg_pool2d(steps[None], 2 * size + 1, 1, size)[0].sqrt()
    margin = size // 2
    return mean[margin:-margin:3, margin:-margin:3] >= least


def synthetic(data: Path | None) -> None:
    size, side, noise = 15, 256, 0.01
    print(f"\nSynthetic, {side}×{side} RGB, K {size}, noise {noise}: mean of ½ Σ |k − truth| at each pixel\n")
    print(
        "| picture | B | where there is texture | everywhere | basis permuted | masks known | re-blur dB "
        "| rounds | s |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    pictures = {"astronaut": astronaut(side)}
    if data:
        first = sorted((data / "pairs/GoPro/train").glob("*/sharp/*.png"))[0]
        pictures["GoPro frame"] = read(first)[:, 200 : 200 + side, 500 : 500 + side]
    for name, sharp in pictures.items():
        for bases in (4, 9):
            # The settings were chosen on the astronaut with these seeds; the other picture has others.
            seed = bases if name == "astronaut" else 100 + bases
            true_kernels, true_masks = truth_of(bases, side, size, seed)
            generator = torch.Generator().manual_seed(1)
            blurred = blur(sharp, true_kernels, true_masks)
            blurred = blurred + noise * torch.randn(blurred.shape, generator=generator)
            started = time.process_time()
            fit = estimate_basis(sharp, blurred, bases, size)
            seconds = time.process_time() - started
            error = kernel_error(fit.kernels, fit.masks, true_kernels, true_masks)
            order = torch.randperm(bases, generator=generator)
            again = kernel_error(fit.kernels[order], fit.masks[order], true_kernels, true_masks)
            known = estimate_kernels(sharp, blurred, true_masks, size, iterations=1000)
            best = kernel_error(known.kernels, true_masks, true_kernels, true_masks)
            where = textured(sharp, size)
            print(
                f"| {name} | {bases} | {float(error[where].mean()):.3f} | {float(error.mean()):.3f} "
                f"| {float(again[where].mean()):.3f} | {float(best[where].mean()):.3f} "
                f"| {fit.reblur_psnr:.2f} | {len(fit.history) // 2} | {seconds:.0f} |",
                flush=True,
            )


# How many kernels


def counts(data: Path, picture: Path | None) -> None:
    size = 15
    pairs = sorted((data / "pairs/GoPro/train").glob("*/sharp/*.png"))[::4]
    print(f"\nGoPro pairs, whole frames at half size, mean of the colours, K {size}: re-blur PSNR in dB\n")
    print("| frame | sharp itself | " + " | ".join(f"B {count}" for count in COUNTS) + " | proposed | s |")
    print("|---" * (len(COUNTS) + 4) + "|")
    lines, spectra = [], []
    for path in pairs:
        blurred = read(path.parents[1] / "blur" / path.name, grey=True)
        u, v = (F.avg_pool2d(picture, 2) for picture in (read(path, grey=True), blurred))
        started = time.process_time()
        patches = gather_patches(u, v, size)
        spectra.append(singular_values(patch_kernels(patches), patches.texture).tolist())
        report = compare_counts(u, v, size, counts=COUNTS, rounds=3)
        seconds = time.process_time() - started
        itself = torch.zeros(1, size, size)
        itself[0, size // 2, size // 2] = 1
        lines.append([reblur_psnr(u, v, itself, None), *report.psnr])
        print(
            f"| {path.stem} | " + " | ".join(f"{value:.2f}" for value in lines[-1]),
            f"| {report.proposed} | {seconds:.0f} |",
            flush=True,
        )
    print("\nPart of the patch kernels (energy) that the first n singular vectors explain, in %\n")
    print("| frame | patches | " + " | ".join(f"n {count}" for count in COUNTS) + " |")
    print("|---" * (len(COUNTS) + 2) + "|")
    for path, values in zip(pairs, spectra, strict=True):
        parts = [100 * sum(value**2 for value in values[:count]) for count in COUNTS]
        print(f"| {path.stem} | {len(values)} | " + " | ".join(f"{part:.1f}" for part in parts) + " |")
    if picture:
        draw_counts(lines, spectra, [path.stem for path in pairs], picture)


COLOURS = ((0, 90, 170), (200, 80, 20), (30, 140, 60), (120, 60, 150))


def draw_counts(lines: list[list[float]], spectra: list[list[float]], names: list[str], path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    width, height, edge = 620, 440, 70
    image = Image.new("RGB", (2 * width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)

    def chart(
        origin: int,
        curves: list[list[tuple[float, float]]],
        ticks: tuple[list[float], list[float]],
        title: str,
        below: str,
        place: Callable[[float], float],
        show: Callable[[float], str],
    ) -> None:
        low, high = (place(ticks[1][end]) for end in (0, -1))
        left, right = ticks[0][0], ticks[0][-1]

        def point(x: float, y: float) -> tuple[float, float]:
            across = (np.log(x) - np.log(left)) / (np.log(right) - np.log(left))
            return (
                origin + edge + across * (width - edge - 30),
                height - edge - (place(y) - low) / (high - low) * (height - edge - 50),
            )

        for x in ticks[0]:
            draw.line([point(x, ticks[1][0]), point(x, ticks[1][-1])], fill=(225, 225, 225))
            draw.text(
                (point(x, 0 or ticks[1][0])[0], height - edge + 8), f"{x:g}", "black", font, anchor="mt"
            )
        for y in ticks[1]:
            draw.line([point(left, y), point(right, y)], fill=(225, 225, 225))
            draw.text((origin + edge - 8, point(left, y)[1]), show(y), "black", font, anchor="rm")
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            places = [point(x, y) for x, y in curve]
            draw.line(places, fill=colour, width=3)
            for x, y in places:
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        draw.text((origin + width / 2, 18), title, "black", font, anchor="mm")
        draw.text((origin + width / 2, height - 22), below, "black", font, anchor="mm")

    psnr = [list(zip(COUNTS, line[1:], strict=True)) for line in lines]
    flat = [value for line in lines for value in line[1:]]
    steps = [float(v) for v in range(int(min(flat) // 2 * 2), int(max(flat)) + 3, 2)]
    grid = [float(count) for count in COUNTS]
    chart(
        0,
        psnr,
        (grid, steps),
        "re-blur PSNR, dB",
        "basis kernels B",
        lambda y: y,
        lambda y: f"{y:.0f}",
    )
    powers = [1e-2, 1e-1, 1.0]
    tails = [
        [(n + 1.0, max(value / values[0], powers[0])) for n, value in enumerate(values[:25])]
        for values in spectra
    ]
    chart(
        width,
        tails,
        (grid, powers),
        "singular values of the patch kernels, first = 1",
        "number",
        lambda y: float(np.log10(y)),
        lambda y: f"{y:g}",
    )
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        y = height - edge - 20 - 20 * (len(names) - 1 - number)
        draw.line([(width - 140, y), (width - 115, y)], fill=colour, width=3)
        draw.text((width - 108, y), name, "black", font, anchor="lm")
    image.quantize(64).save(path, optimize=True)


# Speed


def by_adam(u: Tensor, v: Tensor, masks: Tensor, size: int, goal: float, limit: float) -> float | None:
    """Seconds of softmax and Adam to an objective, best of two learning rates; None: not reached."""
    margin = size // 2
    target = v[:, margin:-margin, margin:-margin]
    inner = masks[:, margin:-margin, margin:-margin]
    best = None
    for rate in (0.05, 0.2):
        logits = torch.zeros(len(masks), size * size, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=rate)
        started = time.process_time()
        while (spent := time.process_time() - started) < min(limit, best or limit):
            optimiser.zero_grad()
            kernels = logits.softmax(1).reshape(-1, size, size)
            loss = 0.5 * (blur(u, kernels, inner, border="valid") - target).square().sum()
            if float(loss.detach()) <= goal:
                best = spent
                break
            loss.backward()
            optimiser.step()
    return best


def by_cvxpy(u: Tensor, v: Tensor, masks: Tensor, size: int) -> tuple[float, float]:
    """Seconds and objective; the tall matrix is reduced by QR first: without that it takes far longer."""
    import cvxpy

    started = time.process_time()
    problem = Problem(u.double(), v.double(), masks, size, "mean")
    patches = problem.wide.unfold(1, size, 1).unfold(2, size, 1)  # (C,h,w,K,K)
    rows = torch.cat(
        [(m[None, :, :, None, None] * patches).flatten(3).flatten(0, 2) for m in problem.masks], 1
    )
    target = problem.target.flatten()
    triangle = torch.linalg.qr(torch.cat([rows, target[:, None]], 1), mode="r").R.numpy()
    k = cvxpy.Variable(rows.shape[1], nonneg=True)
    sums = [cvxpy.sum(k[b * size**2 : (b + 1) * size**2]) == 1 for b in range(len(masks))]
    cost = 0.5 * cvxpy.sum_squares(triangle[:, :-1] @ k - triangle[:, -1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = cvxpy.Problem(cvxpy.Minimize(cost), sums).solve()
    return time.process_time() - started, float(value)


def speed(rounds: int) -> None:
    print("\nTo the same objective (0.1 % above the certified one): medians, processor s, interleaved\n")
    print(
        "| photograph | K | B | unsmear s | gap / objective | softmax + Adam s | ratio | CVXPY s | ratio "
        "| its objective / ours |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    cases = [(32, 5, 1), (64, 9, 1), (128, 15, 1), (256, 21, 1), (32, 5, 4), (64, 9, 4), (128, 11, 4)]
    for side, size, bases in cases:
        u = astronaut(512)[:, 40 : 40 + side, 60 : 60 + side]
        kernels, masks = truth_of(bases, side, size, 1)
        v = blur(u, kernels, masks) + 0.01 * torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
        ours, adams, cvxs, note = [], [], [], ""
        fit = estimate_kernels(u, v, masks, size)
        slow = False
        for _ in range(rounds):
            started = time.process_time()
            fit = estimate_kernels(u, v, masks, size)
            ours.append(time.process_time() - started)
            limit = min(max(12 * ours[-1], 0.5), 15.0)
            if not slow:
                adam = by_adam(u, v, masks, size, 1.001 * fit.objective, limit)
                slow = adam is None
                adams.append(adam if adam else limit)
            if bases * (size * side) ** 2 < LARGEST_CVXPY and (not cvxs or cvxs[0] < 5):
                seconds, value = by_cvxpy(u, v, masks, size)
                cvxs.append(seconds)
                note = f"{value / fit.objective:.6f}"
        mine, adam_s = statistics.median(ours), statistics.median(adams)
        more = "> " if slow else ""
        cvx = f"{statistics.median(cvxs):.2f} | {statistics.median(cvxs) / mine:.0f}" if cvxs else "– | –"
        print(
            f"| {side}×{side} RGB | {size} | {bases} | {mine:.3f} | {fit.gap / fit.objective:.0e} "
            f"| {more}{adam_s:.2f} | {more}{adam_s / mine:.0f} | {cvx} | {note or '–'} |",
            flush=True,
        )
    print(
        "\nOne application of AᵀA against the bare transforms that it cannot do without (256×256 RGB, K 31)\n"
    )
    print("| B | form | ms | bare transforms, ms | ratio |\n|---:|---|---:|---:|---:|")
    for bases in (1, 4, 25):
        u = astronaut(256)
        kernels, masks = truth_of(bases, 256, 31, 1)
        problem = Problem(u, blur(u, kernels, masks), masks, 31, "mean")
        rows = kernels.flatten(1).contiguous()
        for form in ("gram", "fft") if bases == 1 else ("fft",):
            apply, _ = problem.hessian(form)  # type: ignore[arg-type]
            planes = torch.zeros(3, 256, 256)

            def bare(planes: Tensor = planes, bases: int = bases) -> None:
                # there: B kernels forward, B C responses back; back: B C masked residuals, B kernels back
                for _ in range(bases):
                    torch.fft.irfft2(torch.fft.rfft2(planes))
                    torch.fft.rfft2(planes[:1])
                    torch.fft.irfft2(torch.fft.rfft2(planes)[:1])

            times: dict[str, list[float]] = {"apply": [], "bare": []}
            for turn in range(6):
                for name, function in (("apply", lambda: apply(rows)), ("bare", bare)):  # noqa: B023
                    started = time.process_time()
                    function()
                    if turn:
                        times[name].append(time.process_time() - started)
            one, other = (1000 * statistics.median(times[name]) for name in ("apply", "bare"))
            print(f"| {bases} | {form} | {one:.1f} | {other:.1f} | {one / other:.2f} |", flush=True)


def main() -> None:
    sections: dict[str, Any] = {"levin": levin, "lai": lai, "synthetic": synthetic, "counts": counts}
    sections["saturated"] = saturated
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the development images")
    parser.add_argument("--only", nargs="+", choices=[*sections, "speed"], default=[*sections, "speed"])
    parser.add_argument("--picture", type=Path, help="where the figure of redundancy goes")
    parser.add_argument("--rounds", type=int, default=3, help="of the timings")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if "synthetic" in wanted.only:
        synthetic(wanted.data)
    if "speed" in wanted.only:
        speed(wanted.rounds)
    if wanted.data and "levin" in wanted.only:
        levin(wanted.data)
    if wanted.data and "lai" in wanted.only:
        lai(wanted.data)
    if wanted.data and "saturated" in wanted.only:
        saturated(wanted.data)
    if wanted.data and "counts" in wanted.only:
        counts(wanted.data, wanted.picture)


if __name__ == "__main__":
    main()
