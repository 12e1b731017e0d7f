"""What restores a picture: nothing, a network, a function, or whatever program wrote a folder of results."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsmear.errors import EvaluationError
from unsmear.evaluation.layouts import PairFiles
from unsmear.models.restoring import find_device, image_channels, restore
from unsmear.photo import find_photos, read_photo


@dataclass(frozen=True)
class Restorer:
    """Restores one picture of a pair, and says where its result comes from.

    run: (pair, blurred (3,H,W) in [0,1]) -> restored (3,H,W).
    about: name, and for a network its header, the number of its parameters and a hash of its weights.
    timed: whether the time that `run` takes means anything.
    """

    run: Callable[[PairFiles, Tensor], Tensor]
    about: dict[str, Any]
    timed: bool = True


def find_restorer(
    model: str | Path | nn.Module | Callable[[Tensor], Tensor],
    pairs: Sequence[PairFiles],
    *,
    device: str = "auto",
    crop: int | None = None,
) -> Restorer:
    """Make a Restorer of what `evaluate` takes as its model. Raises ModelError for an unknown one."""
    if isinstance(model, nn.Module):
        return _network(model, type(model).__name__, device)
    if not isinstance(model, (str, Path)):
        return Restorer(lambda _, blurred: model(blurred), {"name": getattr(model, "__name__", "function")})
    if model == "input":
        return Restorer(lambda _, blurred: blurred, {"name": "input"}, timed=False)
    if model == "kernels":
        from unsmear.models.by_kernels import deblurred

        return Restorer(lambda _, blurred: deblurred(blurred), {"name": "kernels"})
    if str(model) and Path(model).is_dir():
        return _folder_of_results(Path(model), pairs, crop)
    from unsmear.models.checkpoints import load_checkpoint

    check_source(model)
    network = load_checkpoint(model)
    return _network(network, str(model), str(find_device(device)))


def _network(network: nn.Module, name: str, device: str) -> Restorer:
    """Through the wrapper that pads and crops, unless the network declares nothing that it could go by."""
    from unsmear.models.by_kernels import deblurred

    if device != "auto":
        network = network.to(find_device(device))
    weight = next(network.parameters(), None)
    place = torch.device("cpu") if weight is None else weight.device
    others = [other.to(place) for other in companions(network)]

    def run(_: PairFiles, blurred: Tensor) -> Tensor:
        training = network.training
        network.eval()
        try:
            with torch.inference_mode():
                if image_channels(network) > 3:
                    restored: Tensor = deblurred(blurred, network, *others, precision="fp32")
                elif not hasattr(network, "size_multiple"):
                    restored = network(blurred[None].to(place))[0]
                else:
                    restored = restore(network, blurred.to(place))
                return restored.cpu()
        finally:
            network.train(training)

    about = {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights_sha256": weights_sha256(network, *others),
        "device": str(place),
        "header": getattr(network, "header", None),
    }
    return Restorer(run, about)


def check_source(source: str | Path) -> None:
    """Refuse a path, not a network's name, where there is nothing. Raises EvaluationError."""
    if len(Path(source).parts) > 1 and not Path(source).exists():
        raise EvaluationError(f"{source}: there is no such folder of results, and no such checkpoint file")


def companions(network: nn.Module) -> list[nn.Module]:
    """The witness and the filler of a guided network (`Deblurrer`); none for others."""
    from unsmear.models.by_kernels import FILLER, WITNESS
    from unsmear.models.checkpoints import load_checkpoint

    return [load_checkpoint(name) for name in (WITNESS, FILLER)] if image_channels(network) > 3 else []


def weights_sha256(*networks: nn.Module) -> str:
    """Hash of names, types, shapes and bytes of all that networks store, whatever file they came from."""
    digest = hashlib.sha256()
    states = [network.state_dict() for network in networks]
    for name, tensor in (item for state in states for item in sorted(state.items())):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _folder_of_results(folder: Path, pairs: Sequence[PairFiles], crop: int | None) -> Restorer:
    files = match_results(folder, pairs)

    def run(pair: PairFiles, blurred: Tensor) -> Tensor:
        if pair.blurred not in files:
            raise EvaluationError(f"no restored picture in {folder} has a name that fits {pair.blurred}")
        restored = read_photo(files[pair.blurred]).tensor()
        return restored if crop is None else centre(restored, crop)

    return Restorer(run, {"name": str(folder), "files": len(files)}, timed=False)


def match_results(folder: Path, pairs: Sequence[PairFiles]) -> dict[Path, Path]:
    """For each blurred file the one in `folder` whose path, read from its end, agrees with it longest.

    a/b/000047.png fits a pair blurred/b/000047 better than one of c/000047; "b-000047" and "b_000047", as
    repacked sets have it, fit too. A file serves one blurred picture only, the one that it fits best.
    Suffixes do not count.
    """
    by_ending: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in find_photos(folder):
        parts = path.relative_to(folder).with_suffix("").parts
        for start in range(len(parts)):
            by_ending[parts[start:]].append(path)
    claims: dict[Path, list[tuple[int, PairFiles]]] = defaultdict(list)
    for pair in pairs:
        endings = _endings(pair)
        fit = next((ending for ending in endings if len(by_ending.get(ending[1], ())) == 1), None)
        if fit is not None:
            claims[by_ending[fit[1]][0]].append((fit[0], pair))
    matched = {}
    for path, claimants in claims.items():
        best = max(length for length, _ in claimants)
        winners = [pair for length, pair in claimants if length == best]
        if len({pair.blurred for pair in winners}) == 1:
            matched[winners[0].blurred] = path
    return matched


def _endings(pair: PairFiles) -> list[tuple[int, tuple[str, ...]]]:
    """Paths under which a result may lie, the longest first, each with how many parts it bears out."""
    named = tuple(pair.name.split("/"))
    found = [
        (len(parts) - start, parts[start:])
        for parts in (pair.blurred.with_suffix("").parts, named)
        for start in range(len(parts))
    ]
    found += [
        (len(named) - start, (sign.join(named[start:]),)) for start in range(len(named) - 1) for sign in "-_"
    ]
    return sorted(found, key=lambda ending: -ending[0])


def centre(x: Tensor, side: int) -> Tensor:
    """The middle side×side pixels of (3,H,W), fewer where the picture is smaller."""
    height, width = min(side, x.shape[-2]), min(side, x.shape[-1])
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[:, top : top + height, left : left + width]
