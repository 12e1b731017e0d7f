"""A photo is never made worse: what `unsmear deblur` does by default to pictures that it cannot improve.

    python benchmarks/guard.py --packages FOLDER [--second] [--few 8] [--model NAME] [--fast]
    python benchmarks/guard.py --photos FOLDER [--count 50] [--few 8] [--model NAME] [--fast]

Photographs, reduced to half a megapixel: `--count` of them as they are, sharp, and `--few` of them, evenly
spread, spoiled by something that is not motion: defocus (a disc), a Gaussian, noise, a dark night with noise,
JPEG at quality 30. Besides, made here: text, line art, a gradient, one colour, white noise.

They are those of a folder, which should hold none that a network was trained on; or the fifty of PACKAGES,
which guided-s, unet-s and nafnet-s have never seen: scikit-image's, and those of Debian's wallpaper packages
that are photographs and not moved, each package unpacked into a folder of its name (apt-get download
mate-backgrounds; dpkg-deb -x mate-backgrounds_*.deb FOLDER/mate-backgrounds). With those fifty at hand the
numbers of the checks were chosen; --second has others, by which nothing was chosen, picked by sight before
any was run: all that are photographs in budgie-backgrounds 3.0 and gnome-backgrounds 3.38 (Debian 13 and 11)
and ukui-wallpapers 20.04.4 (Debian unstable of November 2026).

Two scores a picture: PSNR of the output to the input, which is infinite where nothing was changed, and where
there is a truth (the photograph before it was spoiled, and for what is made here the picture itself), by how
much the output is nearer to it, or further from it, than the input.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips
import skimage.data
import torch
from torch import Tensor

import unsmear
from unsmear.basis.kernels import defocus
from unsmear.blurring import blur, to_linear, to_srgb
from unsmear.metrics import psnr_rgb
from unsmear.models.by_kernels import reduced
from unsmear.models.tiling import TensorPixels
from unsmear.photo import find_photos

PIXELS = 500_000
SPREAD = 1.5  # of the Gaussian, in pixels
SIDE = 512
TEXT = "Sphinx of black quartz, judge my vow. The five boxing wizards jump quickly. " * 40

PACKAGES = {
    "mate-backgrounds/usr/share/backgrounds/mate/nature/{}.jpg": "Aqua Blinds Dune FreshFlower Garden "
    "GreenMeadow LadyBird RainDrops TwoWings Wood YellowFlower",
    "plasma-workspace-wallpapers/usr/share/wallpapers/{}/contents/images/2560x1600.jpg": "BytheWater "
    "ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path summer_1am",
    "lomiri-wallpapers-16.04/usr/share/backgrounds/{}.jpg": "Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly "
    "Picture_0B_by_freespace Picture_1A_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi "
    "free_by_Peter_Nerlich friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich "
    "life_by_Aitzol_Berasategi picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt "
    "sunset_by_Aitzol_Berasategi analogpattern_by_Peter_Nerlich",
    "lomiri-wallpapers-20.04/usr/share/backgrounds/{}.jpg": "Kleiber_by_Lukas_Baubkus",
}
SECOND = {
    "budgie-backgrounds/usr/share/backgrounds/budgie/{}.jpg": "abstract-spiral beacon-street-sunset "
    "blue-periwinkle canyon-wren casa-mila extreme-desert-hike high-trestle-trail lake-sherburne "
    "oakland-zoo-otters perched-osprey piazza-gae-aulenti roman-colosseum singaporean-cityscape tea-gardens",
    "gnome-backgrounds/usr/share/backgrounds/gnome/{}.jpg": "Acrylic ColdWarm Dark_Ivy Icetwigs LightWaves "
    "Road SeaSunset Wood",
    "ukui-wallpapers/usr/share/backgrounds/{}.jpg": "bluebird bridgecity bridgecity2 flamingos horse house "
    "look mountain-range mountain mountain2 sea sky snowy-mountains still-life sunf",
}
SKIMAGE = (
    "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
    "hubble_deep_field.jpg moon.png motorcycle_left.png retina.jpg rocket.jpg"
)

Case = tuple[str, str, Tensor, Tensor]  # kind, name, picture, truth


def spoiled(photo: Tensor, chance: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
    """The photograph (3,H,W), spoiled by everything that is not motion."""
    everywhere = torch.ones(1, *photo.shape[1:])
    disc = torch.from_numpy(defocus(float(chance.uniform(1.5, 4))))
    line = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / (2 * SPREAD**2))
    gaussian = torch.outer(line, line) / line.sum() ** 2
    for kind, kernel in (("defocus", disc), ("Gaussian", gaussian)):
        yield kind, to_srgb(blur(to_linear(photo), kernel[None], everywhere).clamp(0, 1))
    yield "noise", photo + float(chance.uniform(0.02, 0.08)) * _noise(photo, chance)
    dark = to_srgb(0.02 * to_linear(photo))
    yield "night", dark + 0.015 * _noise(photo, chance)
    pixels = np.ascontiguousarray((photo.permute(1, 2, 0) * 255).round().byte().numpy())
    squeezed = pyvips.Image.new_from_array(pixels).write_to_buffer(".jpg", Q=30)
    yield "JPEG", _tensor(pyvips.Image.new_from_buffer(squeezed, ""))


def made(chance: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
    """Pictures (3, SIDE, SIDE) that are no photographs."""
    words = (
        pyvips.Image.text(TEXT, width=SIDE - 40, dpi=90).invert().embed(20, 20, SIDE, SIDE, extend="white")
    )
    yield "text", _tensor(words)
    shapes = "".join(
        f'<circle cx="{x}" cy="{y}" r="{r}"/><path d="M{x} {y}L{y} {x}"/>'
        for x, y, r in chance.uniform(20, SIDE - 20, (25, 3)).round(1) * (1, 1, 0.4)
    )
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}">'
    style = '<rect width="100%" height="100%" fill="white"/><g fill="none" stroke="black" stroke-width="2">'
    yield "line art", _tensor(pyvips.Image.svgload_buffer(f"{frame}{style}{shapes}</g></svg>".encode())[:3])
    ramp = torch.linspace(0.1, 0.9, SIDE)
    yield (
        "gradient",
        torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE), 1 - ramp.expand(SIDE, SIDE)]),
    )
    yield "one colour", torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand(3, SIDE, SIDE)
    yield "white noise", torch.from_numpy(chance.uniform(0, 1, (3, SIDE, SIDE)).astype(np.float32))


def cases(photos: list[Path], few: int) -> Iterator[Case]:
    chance = np.random.default_rng(1)
    for index, path in enumerate(photos):
        photo, _ = reduced(TensorPixels(unsmear.read_photo(path).tensor()), PIXELS)
        photo = _eight_bits(photo)
        yield "sharp", _label(path), photo, photo
        if index % max(1, len(photos) // few) == 0 and index // max(1, len(photos) // few) < few:
            for kind, picture in spoiled(photo, chance):
                truth = to_srgb(0.02 * to_linear(photo)) if kind == "night" else photo
                yield kind, _label(path), _eight_bits(picture), truth
    for kind, picture in made(chance):
        yield kind, "", _eight_bits(picture), _eight_bits(picture)


def of_packages(folder: Path, second: bool) -> list[Path]:
    """The photographs of PACKAGES, unpacked into a folder, and scikit-image's; or those of SECOND."""
    packages = SECOND if second else PACKAGES
    found = [folder / path.format(name) for path, names in packages.items() for name in names.split()]
    if not second:
        found += [Path(skimage.data.data_dir) / name for name in SKIMAGE.split()]
    missing = [str(path) for path in found if not path.is_file()]
    if missing:
        raise SystemExit("not there: " + ", ".join(missing))
    return sorted(found, key=_label)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    where = options.add_mutually_exclusive_group(required=True)
    where.add_argument("--photos", type=Path)
    where.add_argument("--packages", type=Path)
    options.add_argument("--second", action="store_true", help="the second set of --packages")
    options.add_argument("--count", type=int, default=50)
    options.add_argument("--few", type=int, default=8)
    options.add_argument("--model", default="guided-s")
    options.add_argument("--fast", action="store_true", help="what `unsmear deblur --fast` does")
    chosen = options.parse_args()
    if chosen.second and not chosen.packages:
        options.error("--second is of --packages")
    found = find_photos(chosen.photos) if chosen.photos else of_packages(chosen.packages, chosen.second)
    count = min(chosen.count, len(found))
    photos = [found[(2 * place + 1) * len(found) // (2 * count)] for place in range(count)]
    scores: dict[str, list[tuple[float, float]]] = {}
    for kind, name, picture, truth in cases(photos, chosen.few):
        output = _eight_bits(unsmear.deblur(picture, model=chosen.model, fast=chosen.fast))
        moved = _psnr(output, picture)
        gain = 0.0 if math.isinf(moved) or picture is truth else _psnr(output, truth) - _psnr(picture, truth)
        scores.setdefault(kind, []).append((moved, gain))
        print(f"{kind:12s} {name:40s} {moved:6.2f} dB to the input, {gain:+.3f} dB nearer", flush=True)
    print(
        "\n| input | pictures | untouched | least PSNR to the input | below 38 dB | nearer to the truth, dB |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for kind, pairs in scores.items():
        moved = [pair[0] for pair in pairs]
        gains = [pair[1] for pair in pairs]
        truth = (
            ""
            if kind == "sharp" or len(pairs) == 1
            else f"{statistics.mean(gains):+.2f} (least {min(gains):+.2f})"
        )
        print(
            f"| {kind} | {len(pairs)} | {sum(map(math.isinf, moved))} | {min(moved):.1f} "
            f"| {sum(value < 38 for value in moved)} | {truth} |"
        )


def _label(path: Path) -> str:
    """The photograph's name: that of its folder where files are named by their size."""
    return path.parts[-4] if path.stem[0].isdigit() and len(path.parts) > 4 else path.stem


def _psnr(one: Tensor, other: Tensor) -> float:
    return math.inf if torch.equal(one, other) else float(psnr_rgb(one, other))


def _eight_bits(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round() / 255


def _noise(like: Tensor, chance: np.random.Generator) -> Tensor:
    return torch.from_numpy(chance.standard_normal(tuple(like.shape)).astype(np.float32))


def _tensor(image: pyvips.Image) -> Tensor:
    values = torch.from_numpy(np.array(image.colourspace("srgb").numpy(), dtype=np.float32)) / 255
    return (values if values.ndim == 3 else values[..., None].expand(-1, -1, 3)).permute(2, 0, 1).contiguous()


if __name__ == "__main__":
    main()
