"""A network that predicts basis kernels and masks and restores with them, against one from end to end.

    python benchmarks/predicted_kernels.py run --sharp PHOTOS --data DATA [--seeds 0] [--budget 1500]
    python benchmarks/predicted_kernels.py report [--write]

The paper's training tuple (u, v, {k}, {m}) holds the kernels and the masks; a network from end to end learns
from u and v alone. Here one is taught all four, in the same core time:

end to end   unet-s (models/guided.py), y = v + r
predicted    from v a network predicts BASES kernels of SIDE×SIDE pixels and their masks; Tikhonov's filter
             (estimation/filtering.py, masks after the filter) makes of them two pictures, one for each λ of
             WEIGHTS; and guided-s's U-Net restores from v and the two. All learn together, through the filter

Both by the loss psnr-soft. `predicted` also makes small, with the shares FIELD and REBLUR,

    Σ_x ‖K̂_x − K_x‖² / Σ_x (‖K̂_x‖² + ‖K_x‖²)     K_x = Σ_b m_b(x) k_b, the kernel at each pixel: it does not
                                        ask for the order of the kernels, nor for more of the tuple than
                                        Eq. 2 shows. At most 1: without ‖K̂_x‖² below, a few short kernels in
                                        the place of long ones, which have small squares, cost so much that a
                                        first run fell apart after 1900 of about 3100 steps
    psnr-soft(Σ_b m̂_b (k̂_b ∗ u), v)    the re-blurred picture, in the light that the pair was blurred in

Kernels are learned over v's own place: the origin is that of the tuple. The pairs are Eq. 2's (PairSettings'
defaults), patches of 160×160, 4 a step, AdamW, the rate falling from 5e-4 along a cosine, the average of the
weights with 0.98. A run ends when its budget of processor time is spent, one thread, its pairs included.

Scored like claims.py, and on 48 held-out pairs of 160×160: what each makes of them, what `predicted` would
make by the true kernels (its filter and U-Net as they are), and how near its kernels come, by the field's
error as above, from 0 to 1; also that of the identity everywhere.

A run is a line of the log; runs in the log are not run again.
"""

import argparse
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims import HELD, HELD_PHOTOS, ROOT, Scored, commands, read_log, write
from claims_report import BLURRED, Log, put
from unsmear.basis.kernels import pad_kernels
from unsmear.blurring import to_linear
from unsmear.estimation.spectra import difference_power, fast_size, kernel_spectrum, periodic
from unsmear.metrics import psnr_rgb
from unsmear.models import create
from unsmear.models.costs import parameters
from unsmear.models.guided import GuidedUNet, ResidualBlock
from unsmear.pairs import Pair, PairSampler
from unsmear.photo import find_photos
from unsmear.training.losses import psnr_soft

LOG = ROOT / "recipes" / "history" / "predicted-kernels.jsonl"
DOCUMENT = ROOT / "docs" / "MODELS.md"
FIELDS = ("name", "seed", "budget")
NAMES = ("predicted", "end to end")
SETS = {"adaptive": "Eq. 2", "GoPro": "GoPro", "REDS": "REDS", "Koehler": "Köhler", "Lai": "Lai"}

BASES, SIDE, SIZE, BATCH = 6, 65, 160, 4
WEIGHTS = (3e-3, 3e-2)
FIELD, REBLUR = 3.0, 0.3
RATE, WARM, DECAY, CLIP = 5e-4, 20, 0.98, 1.0


# The network


class Predictor(nn.Module):
    """Predict from v (N, 3, H, W) kernels (N, BASES + 1, SIDE, SIDE) and masks (N, BASES + 1, H, W).

    The last kernel is the identity. Features at 1/2 to 1/16 of the resolution; kernels from their mean and
    standard deviation over the picture, masks from a decoder at 1/2.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 160), depth: int = 2) -> None:
        super().__init__()

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels=width) for _ in range(depth)))

        above = list(itertools.pairwise(widths))
        self.enter = nn.Conv2d(12, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(stage(width) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in above)
        self.bottom = stage(widths[-1])
        self.up = nn.ModuleList(nn.Conv2d(deep, 4 * wide, 1) for wide, deep in above)
        self.masks = nn.Conv2d(widths[0], BASES + 1, 3, padding=1)

        self.whole = nn.Sequential(nn.Linear(2 * widths[-1], 512), nn.GELU(), nn.Linear(512, 128 * 5 * 5))
        self.grown = nn.ModuleList(
            nn.Conv2d(wide, deep, 3, padding=1) for wide, deep in ((128, 96), (96, 64), (64, 48), (48, BASES))
        )
        place = torch.arange(SIDE) - SIDE // 2
        spread = torch.linspace(1.0, 8.0, BASES)[:, None, None]
        prior = -(place.square()[:, None] + place.square()) / (2 * spread.square())
        self.prior = nn.Parameter(prior)  # logarithm of each kernel at first
        identity = torch.zeros(1, 1, SIDE, SIDE)
        identity[..., SIDE // 2, SIDE // 2] = 1
        self.register_buffer("identity", identity, persistent=False)
        self.identity: Tensor

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Predict kernels and masks."""
        x = self.enter(F.pixel_unshuffle(v - 0.5, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = down(skips[-1])
        x = self.bottom(x)
        seen = x.float().flatten(2)
        grown = self.whole(torch.cat([seen.mean(2), seen.std(2)], 1)).unflatten(1, (128, 5, 5))
        for layer, side in zip(self.grown, (10, 20, 40, SIDE), strict=True):
            grown = layer(F.gelu(F.interpolate(grown, size=(side, side), mode="bilinear")))
        logits = grown.float() + self.prior
        kernels = logits.flatten(2).softmax(2).unflatten(2, (SIDE, SIDE))
        kernels = torch.cat([kernels, self.identity.expand(len(v), 1, -1, -1)], 1)
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = F.pixel_shuffle(up(x), 2) + skip
        masks = F.interpolate(self.masks(x).float(), size=v.shape[-2:], mode="bilinear").softmax(1)
        return kernels, masks


def unblurred(v: Tensor, kernels: Tensor, masks: Tensor) -> Tensor:
    """Σ_b m_b d_b, F d_b = conj(F k_b) F v / (|F k_b|² + λ |F ∇|²), for each λ of WEIGHTS: (N, 6, H, W)."""
    size = fast_size(v.shape[-2] + SIDE, v.shape[-1] + SIDE)
    seen = torch.fft.rfft2(periodic(v, size))[:, None]
    response = kernel_spectrum(kernels, size)
    power, edges = response.abs().square(), difference_power(size)
    pictures = []
    for weight in WEIGHTS:
        solved = (response.conj() / (power + weight * edges + 1e-6))[:, :, None] * seen
        each = torch.fft.irfft2(solved, s=size)[..., : v.shape[-2], : v.shape[-1]]
        pictures.append((masks[:, :, None] * each).sum(1).clamp(-0.5, 1.5))
    return torch.cat(pictures, 1)


def reblurred(u: Tensor, kernels: Tensor, masks: Tensor) -> Tensor:
    """Eq. 2, Σ_b m_b (k_b ∗ u), u mirrored at its border: (N, 3, H, W)."""
    size = fast_size(u.shape[-2] + SIDE, u.shape[-1] + SIDE)
    seen = kernel_spectrum(kernels, size)[:, :, None] * torch.fft.rfft2(periodic(u, size))[:, None]
    each = torch.fft.irfft2(seen, s=size)[..., : u.shape[-2], : u.shape[-1]]
    return (masks[:, :, None] * each).sum(1)


def field_error(kernels: Tensor, masks: Tensor, true_kernels: Tensor, true_masks: Tensor) -> Tensor:
    """Σ_x ‖K̂_x − K_x‖² / Σ_x (‖K̂_x‖² + ‖K_x‖²) of each picture (N,), by the kernels' inner products."""
    both = torch.cat([kernels, -true_kernels], 1).flatten(2)
    weights = torch.cat([masks, true_masks], 1).flatten(2)
    gram, seen = both @ both.mT, weights @ weights.mT
    count = kernels.shape[1]
    products = gram * seen
    inner = (slice(None), slice(count), slice(count)), (slice(None), slice(count, None), slice(count, None))
    powers = sum(products[part].sum((1, 2)) for part in inner)
    result: Tensor = products.sum((1, 2)) / powers
    return result


class Predicting(nn.Module):
    """Predict, filter, finish: restore v (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor = Predictor()
        self.finish = GuidedUNet()

    def by(self, v: Tensor, kernels: Tensor, masks: Tensor) -> Tensor:
        """Restore by given kernels and masks."""
        with torch.autocast("cpu", enabled=False):
            shown = unblurred(v.float(), kernels.float(), masks.float())
        y: Tensor = self.finish(torch.cat([v, shown], 1))
        return y

    def forward(self, v: Tensor) -> Tensor:
        """Restore by predicted ones."""
        return self.by(v, *self.predictor(v))


# Pairs


def stacked(pairs: list[Pair]) -> dict[str, Tensor]:
    """The tuples of some pairs, kernels and masks filled up with zeros to as many and as large."""
    count = max(BASES, *(len(pair.kernels) for pair in pairs))
    kernels = torch.zeros(len(pairs), count, SIDE, SIDE)
    masks = torch.zeros(len(pairs), count, *pairs[0].sharp.shape[-2:])
    for pair, some, maps in zip(pairs, kernels, masks, strict=True):
        some[: len(pair.kernels)] = torch.from_numpy(pad_kernels(pair.kernels.numpy(), SIDE))
        maps[: len(pair.masks)] = pair.masks
    return {
        "v": torch.stack([pair.blurred for pair in pairs]),
        "u": torch.stack([pair.sharp for pair in pairs]),
        "kernels": kernels,
        "masks": masks,
        "linear": torch.tensor([pair.facts["light"] == "linear" for pair in pairs]),
    }


def loss_of(model: nn.Module, some: dict[str, Tensor]) -> tuple[Tensor, list[float]]:
    """What a step makes small, and its parts: restoration; of `predicted` also the field and the re-blur."""
    v, u = some["v"], some["u"]
    if not isinstance(model, Predicting):
        loss = psnr_soft(model(v), u)
        return loss, [float(loss.detach())]
    kernels, masks = model.predictor(v)
    restoring = psnr_soft(model.by(v, kernels, masks), u)
    field = field_error(kernels, masks, some["kernels"], some["masks"]).mean()
    light = some["linear"][:, None, None, None]
    inner = slice(SIDE // 4, -(SIDE // 4))
    again = reblurred(torch.where(light, to_linear(u), u), kernels, masks)
    blur = psnr_soft(again[..., inner, inner], torch.where(light, to_linear(v), v)[..., inner, inner])
    parts = [float(part.detach()) for part in (restoring, field, blur)]
    return restoring + FIELD * field + REBLUR * blur, parts


# Runs


def trained(name: str, seed: int, budget: float, photos: list[Path]) -> tuple[nn.Module, dict[str, Any]]:
    """Train until the budget is spent; the average of the weights, and what the run was."""
    begun = time.process_time()
    torch.manual_seed(seed)
    model: nn.Module = Predicting() if name == "predicted" else create("unet-s")
    model.to(memory_format=torch.channels_last).train()
    sampler = PairSampler(photos, seed=seed, size=SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-3)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY)
    )
    parts: list[list[float]] = []
    while (spent := (time.process_time() - begun) / budget) < 1:
        rate = RATE * 0.5 * (1 + math.cos(math.pi * spent)) * min(1.0, (len(parts) + 1) / WARM)
        for group in optimizer.param_groups:
            group["lr"] = rate
        some = stacked([sampler[len(parts) * BATCH + index] for index in range(BATCH)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, figures = loss_of(model, some)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        parts.append(figures)
        if len(parts) % 100 == 0:
            means = [round(statistics.fmean(column), 3) for column in zip(*parts[-100:], strict=True)]
            print(name, seed, len(parts), f"{spent:.0%}", means, flush=True)
    facts = {
        "parameters": parameters(model),
        "steps": len(parts),
        "seconds": round(time.process_time() - begun, 1),
        "losses": [
            [round(statistics.fmean(column), 4) for column in zip(*parts[i : i + 50], strict=True)]
            for i in range(0, len(parts), 50)
        ],
    }
    model.load_state_dict(average.module.state_dict())
    return model.eval(), facts


@torch.no_grad()
def on_held_out(model: nn.Module, photos: list[Path]) -> dict[str, list[float]]:
    """Of each blurred held-out pair the gain; of `predicted` also that by the truth, and the errors."""
    sampler = PairSampler(photos, seed=10**6, size=SIZE)
    rows: dict[str, list[float]] = {}

    def note(key: str, value: Tensor) -> None:
        rows.setdefault(key, []).append(round(float(value), 4))

    for index in range(HELD):
        some = stacked([sampler[index]])
        v, u = some["v"], some["u"]
        before = psnr_rgb(v[0], u[0])
        if before >= BLURRED:
            continue
        note("gain", psnr_rgb(model(v)[0].clamp(0, 1), u[0]) - before)
        if isinstance(model, Predicting):
            truth = (some["kernels"], some["masks"])
            note("gain by the truth", psnr_rgb(model.by(v, *truth)[0].clamp(0, 1), u[0]) - before)
            still = model.predictor.identity, torch.ones(1, 1, SIZE, SIZE)
            note("error", field_error(*model.predictor(v), *truth)[0])
            note("error of the identity", field_error(*still, *truth)[0])
    return rows


def run_all(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photos = sorted(find_photos(options.sharp))
    held, used = photos[-HELD_PHOTOS:], photos[:-HELD_PHOTOS]
    scored = Scored(options.data, held)
    for seed in options.seeds:
        for name in options.only:
            if (name, seed, options.budget) in read_log(options.log, FIELDS):
                continue
            model, facts = trained(name, seed, options.budget, used)
            gains = {
                of: [
                    gain
                    for gain, (before, _) in zip(each["psnr"], scored.before[of], strict=True)
                    if before < BLURRED
                ]
                for of, each in scored.gains(model).items()
                if of in SETS
            }
            row = {"name": name, "seed": seed, "budget": options.budget} | facts
            write(options.log, row | {"gains": gains, "held out": on_held_out(model, held)})
            print(
                name, seed, {of: round(statistics.fmean(each), 3) for of, each in gains.items()}, flush=True
            )


def table(log: Log) -> str:
    """Gains by set, then what the prediction is worth."""
    lines = [
        "| network, parameters, seed | core s | steps | " + " | ".join(SETS.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(SETS),
    ]
    told = []
    for (name, seed, budget), row in sorted(
        log.items(), key=lambda item: (item[0][2], item[0][1], item[0][0])
    ):
        means = " | ".join(f"{statistics.fmean(row['gains'][of]):+.2f}" for of in SETS)
        millions = row["parameters"] / 1e6
        lines.append(f"| {name}, {millions:.1f} M, {seed} | {budget} | {row['steps']} | {means} |")
        held = {key: statistics.fmean(each) for key, each in row["held out"].items()}
        if "error" in held:
            told.append(
                f"On {len(row['held out']['error'])} held-out blurred pairs (seed {seed}, {budget} s) the "
                f"predicted kernels have an error of {held['error']:.2f} (the identity everywhere: "
                f"{held['error of the identity']:.2f}); restored by them the gain is {held['gain']:+.2f} "
                f"dB, by the true ones, through the same filter and U-Net, "
                f"{held['gain by the truth']:+.2f} dB."
            )
    return "\n".join([*lines, "", *told])


def report(options: argparse.Namespace) -> None:
    text = table(read_log(options.log, FIELDS))
    print(text)
    if options.write:
        put({"predicted_kernels.py": text}, DOCUMENT)


def main() -> None:
    parser, running = commands(__doc__ or "", LOG, run_all, report)
    running.add_argument(
        "--data", type=Path, required=True, help="folder with pairs/GoPro, REDS, Koehler, Lai"
    )
    running.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these networks")
    running.add_argument("--budget", type=int, default=1500, help="seconds of a core for a run")
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
