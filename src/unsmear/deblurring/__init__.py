"""Deblurring: pictures (one, in memory), files (many, from disk to disk), sharpness (what it brought).

    sharper = unsmear.deblur(picture)             # a path, a Photo, an array or a tensor
    deblur_files(["holiday/"], "sharper/")        # what `unsmear deblur holiday/ -o sharper/` calls

Everything goes through `TiledRestorer`: any size from 1×1 pixel on, with the memory that there is.
"""

from unsmear.deblurring.files import Summary, deblur_files
from unsmear.deblurring.pictures import DEFAULT_MODEL, deblur
from unsmear.deblurring.sharpness import gradient_energy

__all__ = ["DEFAULT_MODEL", "Summary", "deblur", "deblur_files", "gradient_energy"]
