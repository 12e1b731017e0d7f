"""Make the example: a sharp photograph, and the same as a shaken camera would have taken it.

    make dev
    .venv/bin/python examples/make_example.py

The camera turns about all three axes during the exposure (Eq. 1), as a hand does; light is added up as linear
light with the noise of a sensor, and the file is an ordinary JPEG.
"""

from pathlib import Path

import numpy as np
import torch
from skimage import data

from unsmear import Photo, blur, write_photo
from unsmear.basis.kernels import matern_paths
from unsmear.basis.masks import camera_homographies, camera_motion_field
from unsmear.blurring import add_poisson_gaussian_noise, to_linear, to_srgb

SEED = 11
LENGTH = 10.0  # extent of the motion in the middle, in pixels
ROLL = 0.012  # turn about the optical axis, in radians: 4 pixels in the corners
SHOT, READ = 2e-5, 1e-3  # RSBlur's sensor at low gain, in units of full light

HERE = Path(__file__).parent


def main() -> None:
    """Write blurred/coffee.jpg and sharp/coffee.jpg."""
    sharp = Photo(pixels=data.coffee())
    u = sharp.tensor()

    generator = np.random.default_rng(SEED)
    pitch, yaw, roll = matern_paths(generator, 3, smoothness=0.5).T
    focal = 1.2 * sharp.width
    sway = np.stack([pitch, yaw], axis=1)
    sway *= LENGTH / focal / np.linalg.norm(np.ptp(sway, axis=0))
    rotations = np.column_stack([sway, ROLL * roll / np.ptp(roll)])
    poses = camera_homographies(rotations, focal=focal, centre=(sharp.height / 2, sharp.width / 2))
    kernels, masks = camera_motion_field(poses, sharp.height, sharp.width, grid=(5, 5))

    v = to_linear(blur(u, torch.from_numpy(kernels), torch.from_numpy(masks), light="linear"))
    v = to_srgb(add_poisson_gaussian_noise(v, SHOT, READ, torch.Generator().manual_seed(SEED)))

    blurred = sharp.blank_like()
    blurred.put(v.clamp(0, 1))
    write_photo(blurred, HERE / "blurred" / "coffee.jpg", overwrite=True, quality=90)
    write_photo(sharp, HERE / "sharp" / "coffee.jpg", overwrite=True, quality=90)


if __name__ == "__main__":
    main()
