"""Pairs: sharp photographs + blur → the paper's tuples (u, v, {k}, {m}), on the fly or written to a folder.

    sampler = PairSampler("photos/", seed=0, size=256)
    pair = sampler[17]              # always the same pair for the same (seed, 17) and the same photos

Each pair draws a crop of a photograph and a scene of motion (basis kernels and masks), blurs the crop by
Eq. 2 in linear light or in sRGB values, adds noise and rounds to 8 bit. `PairSettings` holds every range and
its source.

    settings   every range, its default, its source
    scenes     the motion of one pair: kernels and masks
    sampling   Pair, PairSampler: pairs on the fly
    folders    write_pairs, WrittenPairs: the same pairs on disk
    pictures   pairs_picture: pairs to look at
"""

from unsmear.pairs.folders import WriteReport, WrittenPairs, write_pairs
from unsmear.pairs.pictures import pairs_picture
from unsmear.pairs.sampling import Pair, PairSampler, stack_pairs
from unsmear.pairs.settings import PairSettings, read_settings

__all__ = [
    "Pair",
    "PairSampler",
    "PairSettings",
    "WriteReport",
    "WrittenPairs",
    "pairs_picture",
    "read_settings",
    "stack_pairs",
    "write_pairs",
]
