"""The networks: one table of names, one way in.

    create("uformer-t")                      a network with first weights
    create("uformer-t", low_rank=True)       the same with the paper's low-rank module, create("sglrn-t")
    create("uformer-t", low_rank="control")  with as many parameters at its place, and no projection
    load_checkpoint(path or name)            a trained network (models/checkpoints.py)

A network is a class with the facts `size_multiple`, `minimum_size`, `global_context` and `LOW_RANK_POINT`,
and one row of `NETWORKS` for each of its sizes. It maps images (N, 3, H, W), sRGB in [0, 1], to the same; in
training mode one that restores at several scales returns a tuple of its outputs, coarse to fine.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from unsmear.errors import ModelError
from unsmear.models.deblurgan import DeblurGAN
from unsmear.models.guided import GuidedUNet, UNet
from unsmear.models.low_rank import insert_low_rank, insertions
from unsmear.models.mscnn import MSCNN
from unsmear.models.nafnet import NAFNet
from unsmear.models.pss_srn import PSSSRN
from unsmear.models.radn import RADN
from unsmear.models.srn import SRN
from unsmear.models.svrnn import SVRNN
from unsmear.models.uformer import Uformer

__all__ = ["NETWORKS", "LowRank", "Network", "create", "insert_low_rank"]

LowRank = bool | Literal["control"] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Which low-rank modules: none, the one at the declared point, its control, arguments of `insert_low_rank`,
or several of these."""


class Network(NamedTuple):
    """A row of the table: constructor, arguments, and whether the name stands for the low-rank variant.

    published: parameters in millions, and billions of multiply-adds at 256×256 (None: not published), as the
    authors or their code count them; reason: why ours differ, in a few words.
    """

    build: Callable[..., nn.Module]
    arguments: Mapping[str, Any]
    low_rank: bool = False
    published: tuple[float, float | None] | None = None
    reason: str = ""


_UFORMER_B: Mapping[str, Any] = {"width": 32, "depths": (1, 2, 8, 8, 2, 8, 8, 2, 1)}
_UFORMER_COUNT = "its code counts windows at a border as whole, and norms as products"
_UFORMER_SMALL = f"counted there without modulators; {_UFORMER_COUNT}"
_NAFNET_S: Mapping[str, Any] = {
    "width": 16, "encoder": (1, 1, 1, 4), "decoder": (1, 1, 1, 1), "local_window": 240, "local_step": 16,
}  # fmt: skip
_COUNTED = "theirs counted in the official code"

NETWORKS: Mapping[str, Network] = {
    "uformer-t": Network(Uformer, {"width": 16}, published=(5.23, 12.00), reason=_UFORMER_SMALL),
    "uformer-s": Network(Uformer, {"width": 32}, published=(20.63, 43.86), reason=_UFORMER_SMALL),
    "uformer-b": Network(Uformer, _UFORMER_B, published=(50.88, 89.46), reason=_UFORMER_COUNT),
    "sglrn-t": Network(Uformer, {"width": 16}, low_rank=True),
    "sglrn-s": Network(Uformer, {"width": 32}, low_rank=True),
    "sglrn-b": Network(Uformer, _UFORMER_B, low_rank=True),
    "guided-s": Network(GuidedUNet, {}, reason="our own"),
    "unet-s": Network(UNet, {}, reason="our own, guided-s without guides"),
    "nafnet-s": Network(NAFNet, _NAFNET_S, reason="our own: 12 blocks, means over windows"),
    "nafnet-16": Network(NAFNet, {"width": 16}, published=(4.35, 4.1)),
    "nafnet-32": Network(NAFNet, {"width": 32}, published=(17.11, 16.0)),
    "nafnet-64": Network(NAFNet, {"width": 64}, published=(67.89, 63.1)),
    "svrnn": Network(SVRNN, {}, published=(9.23, 53.8)),
    "radn": Network(RADN, {}, reason="like it: no official code, no published count at hand"),
    "mscnn": Network(MSCNN, {}, published=(11.72, 336.0), reason=_COUNTED),
    "srn": Network(SRN, {}, published=(6.88, 83.5), reason=_COUNTED),
    "srn-lstm": Network(SRN, {"lstm": True}, published=(8.06, 89.4), reason=f"{_COUNTED}, for one colour"),
    "pss-srn": Network(
        PSSSRN,
        {},
        published=(2.84, None),
        reason="the released graph has 3.87 M; what the paper left out is unknown",
    ),
    "deblurgan": Network(DeblurGAN, {}, published=(11.38, None)),
    "deblurgan-public": Network(DeblurGAN, {"whole_blocks": False}, published=(6.07, None), reason=_COUNTED),
}


def create(name: str, *, low_rank: LowRank | None = None, **arguments: Any) -> nn.Module:
    """Make a network with first weights from the global generator.

    Args:
        name: a name of the table `NETWORKS`.
        low_rank: put the low-rank module in (True, or arguments of `insert_low_rank`, or several of them),
            "control" for a plain block of as many parameters, or leave it out (False); None does as the name
            says.
        arguments: constructor arguments that replace the name's own.

    Returns:
        the network; its attribute `made_by` holds what makes it again: model, low_rank, arguments.

    Raises:
        ModelError: an unknown name (the message has the nearest ones) or argument.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=3, cutoff=0.3) or list(NETWORKS)
        raise ModelError(f"no network is called {name!r}; did you mean {' or '.join(near)}?")
    row = NETWORKS[name]
    try:
        model = row.build(**{**row.arguments, **arguments})
        wanted = row.low_rank if low_rank is None else low_rank
        for one in insertions(wanted):
            insert_low_rank(model, **one)
    except (TypeError, ValueError, RuntimeError, ModelError) as error:
        raise ModelError(f"{name}: {error}") from error
    model.made_by = {"model": name, "low_rank": wanted, "arguments": arguments}  # type: ignore[assignment]
    return model
