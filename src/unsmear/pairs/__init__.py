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
    estimates  write_estimates: beside them what Eq. 3 makes of the blurred pictures alone
    guides     kernels with the errors of estimates, for guided networks
    patches    WrittenPatches, GuidedPatches: what is trained on where a pair as it is does not do
    workers    processes that share the work
    pictures   pairs_picture: pairs to look at
"""

from unsmear.pairs.estimates import EstimateReport, write_estimates
from unsmear.pairs.folders import WriteReport, WrittenPairs, write_pairs
from unsmear.pairs.guides import GuideSettings, spoiled_kernel
from unsmear.pairs.patches import GuidedPatches, Patch, WrittenPatches
from unsmear.pairs.pictures import pairs_picture
from unsmear.pairs.sampling import Pair, PairSampler, stack_pairs
from unsmear.pairs.settings import PairSettings, read_settings

__all__ = [
    "EstimateReport",
    "GuideSettings",
    "GuidedPatches",
    "Pair",
    "PairSampler",
    "PairSettings",
    "Patch",
    "WriteReport",
    "WrittenPairs",
    "WrittenPatches",
    "pairs_picture",
    "read_settings",
    "spoiled_kernel",
    "stack_pairs",
    "write_estimates",
    "write_pairs",
]
