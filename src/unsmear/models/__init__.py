"""The networks: one table of names, one way in.

    create("uformer-t")                     a network with first weights
    create("uformer-t", low_rank=True)      the same with the low-rank module of the paper, create("sglrn-t")
    load_checkpoint(path or name)           a trained network (models/checkpoints.py)

A network is a class with the facts `size_multiple`, `minimum_size`, `global_context` and `LOW_RANK_POINT`,
and one row of `NETWORKS` for each of its sizes.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from unsmear.errors import ModelError
from unsmear.models.guided import GuidedUNet
from unsmear.models.low_rank import LowRankModule
from unsmear.models.uformer import Uformer


class Network(NamedTuple):
    """A row of the table: constructor, arguments, and whether the name stands for the low-rank variant."""

    build: Callable[..., nn.Module]
    arguments: Mapping[str, Any]
    low_rank: bool = False


_UFORMER_B: Mapping[str, Any] = {"width": 32, "depths": (1, 2, 8, 8, 2, 8, 8, 2, 1)}

NETWORKS: Mapping[str, Network] = {
    "uformer-t": Network(Uformer, {"width": 16}),
    "uformer-s": Network(Uformer, {"width": 32}),
    "uformer-b": Network(Uformer, _UFORMER_B),
    "sglrn-t": Network(Uformer, {"width": 16}, low_rank=True),
    "sglrn-s": Network(Uformer, {"width": 32}, low_rank=True),
    "sglrn-b": Network(Uformer, _UFORMER_B, low_rank=True),
    "guided-s": Network(GuidedUNet, {}),
}


def create(name: str, *, low_rank: bool | Mapping[str, Any] | None = None, **arguments: Any) -> nn.Module:
    """Make a network with first weights from the global generator.

    Args:
        name: a name of the table `NETWORKS`.
        low_rank: put the low-rank module in (True, or the module's own arguments) or leave it out (False);
            None does as the name says.
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
        if wanted is not False:
            insert_low_rank(model, **({} if wanted is True else wanted))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: {error}") from error
    model.made_by = {"model": name, "low_rank": wanted, "arguments": arguments}  # type: ignore[assignment]
    return model


def insert_low_rank(model: nn.Module, **arguments: Any) -> LowRankModule:
    """Put a LowRankModule at the network's declared `LOW_RANK_POINT`, of the channels declared there."""
    point, channels = str(model.LOW_RANK_POINT), int(model.low_rank_channels)  # type: ignore[arg-type]
    module = LowRankModule(channels=channels, **arguments)
    setattr(model, point, module)
    return module
