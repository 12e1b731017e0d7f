"""A plain number for how sharp a photo is."""

import numpy as np

from unsmear.blurring import LUMA
from unsmear.photo import Photo

_STRIP = 256  # rows looked at at a time


def gradient_energy(photo: Photo) -> float:
    """Mean of (Y(i, j+1) − Y(i, j))² plus mean of (Y(i+1, j) − Y(i, j))², Y the luma of the sRGB values.

    Y is in [0, 1]. The ratio of two such numbers says how much more contrast there is between neighbouring
    pixels. It rises with sharpness, and with noise and ringing too: it shows that something happened, not
    that it is right.
    """
    across = down = 0.0
    for top in range(0, photo.height, _STRIP):
        # One row more, so that every pair of rows is in one strip.
        strip = photo.tensor(rows=slice(top, top + _STRIP + 1)).numpy()
        luma = np.tensordot(LUMA, strip, 1)
        across += float(np.square(np.diff(luma[:_STRIP], axis=1)).sum())
        down += float(np.square(np.diff(luma, axis=0)).sum())
    pairs_across = photo.height * (photo.width - 1)
    pairs_down = (photo.height - 1) * photo.width
    return across / max(pairs_across, 1) + down / max(pairs_down, 1)
