"""Tiled = untiled where it must, and what the memory decides."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unsmear.errors import ModelError
from unsmear.models import create, memory, tiling
from unsmear.models.low_rank import LowRankModule
from unsmear.models.restoring import restore
from unsmear.models.tiling import TiledRestorer
from unsmear.photo import Photo


class Local(nn.Module):
    """Sees 7×7 pixels: tiles that overlap by as much restore exactly what the whole would."""

    size_multiple, minimum_size, global_context = 16, 32, False

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 3, 7, padding=3, padding_mode="reflect")
        self.largest = 10**9
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> Tensor:
        if image[0, 0].numel() > self.largest:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")
        self.seen.append((image.shape[-2], image.shape[-1]))
        return image + 0.1 * torch.tanh(self.see(image))


class Global(Local):
    """Two low-rank modules, one after the other, at a sixteenth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.low_rank = nn.ModuleList(LowRankModule(channels=8) for _ in range(2))
        for module in self.low_rank:
            nn.init.normal_(module.fuse.weight)
            module.reshape[0] = nn.Identity()  # no neighbours: only the sums couple the tiles
        self.down, self.up = nn.Conv2d(3, 8, 16, stride=16), nn.ConvTranspose2d(8, 3, 16, stride=16)

    def forward(self, image: Tensor) -> Tensor:
        features = self.down(image)
        for module in self.low_rank:
            features = module(features)
        return image + 0.03 * self.up(features)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def photo(height: int, width: int, channels: int = 3, depth: type = np.uint16) -> Photo:
    random = np.random.default_rng(0)
    low, high = np.iinfo(depth).max // 4, 3 * (np.iinfo(depth).max // 4)
    return Photo(pixels=random.integers(low, high, (height, width, channels), depth))


def run(network: nn.Module, source: Photo, **options: Any) -> Photo:
    target = source.blank_like()
    TiledRestorer(network.eval(), **{"precision": "fp32", "statistics": "whole"} | options).restore(
        source, target
    )
    return target


def difference(a: Photo, b: Photo) -> float:
    return float((a.tensor() - b.tensor()).abs().max())


@pytest.mark.parametrize("size", [(200, 300), (97, 500), (1, 400), (64, 64)])
def test_tiles_of_a_network_of_small_reach_are_exact(size: tuple[int, int]) -> None:
    network, source = Local(), photo(*size)
    tiled = run(network, source, tile=64, overlap=16)
    assert max(map(max, network.seen)) < max(max(size), 65)
    assert difference(tiled, run(network, source)) <= 1 / 65535


def test_statistics_of_the_whole_photo_make_tiles_exact() -> None:
    network, source = Global(), photo(200, 290)
    whole = run(network, source)
    assert difference(run(network, source, tile=96, overlap=16), whole) <= 2 / 65535
    assert difference(run(network, source, tile=96, overlap=16, statistics="tile"), whole) > 20 / 65535


def test_every_feature_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, counted = Global().eval(), []

    def statistics(self: LowRankModule, features: Tensor, window: Any = None) -> Any:
        result = original(self, features, window)
        counted.append(result.pixels)
        return result

    original = LowRankModule.statistics
    monkeypatch.setattr(LowRankModule, "statistics", statistics)
    source = photo(200, 290)
    run(network, source, tile=96, overlap=16)
    assert sum(counted) == 2 * (208 // 16) * (304 // 16)


def test_the_network_is_left_as_it_was() -> None:
    network = Global()
    run(network, photo(200, 200), tile=64)
    for module in network.low_rank:
        assert module._given is None and not module._forward_pre_hooks


@pytest.mark.parametrize("network", [Local(), Global()], ids=["local", "global"])
def test_tiles_are_halved_when_memory_runs_out_and_the_rest_is_done(network: Local) -> None:
    source = photo(200, 300)
    whole = run(network, source)
    network.largest = 70 * 70
    tiled = run(network, source, overlap=16)
    assert difference(tiled, whole) <= 2 / 65535
    network.seen.clear()
    tiled = run(network, source, tile=128, overlap=16)  # fails within the photo, not before
    assert difference(tiled, whole) <= 2 / 65535


def test_memory_that_does_not_do_for_the_smallest_tile() -> None:
    network = Local()
    network.largest = 0
    with pytest.raises(ModelError, match="smallest tile"):
        run(network, photo(300, 300))


def test_other_errors_pass() -> None:
    class Broken(Local):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(Broken(), photo(10, 10))


def test_memory_at_hand_decides_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "WHOLE_PIXELS", 0)
    monkeypatch.setattr(tiling, "available_memory", lambda device: 4 * 2**20)
    network, source = Local(), photo(400, 400)
    little = run(network, source, overlap=16)
    assert max(h * w for h, w in network.seen[1:]) < 200 * 200  # the first is the trial
    monkeypatch.setattr(tiling, "available_memory", lambda device: 2**30)
    network.seen.clear()
    assert difference(run(network, source, overlap=16), little) <= 1 / 65535
    assert network.seen[1:] == [(400, 400)]


def test_progress_sums_to_one() -> None:
    network, source, parts = Global().eval(), photo(200, 300), []
    TiledRestorer(network, statistics="whole", tile=64).restore(
        source, source.blank_like(), progress=parts.append
    )
    assert len(parts) > 10 and sum(parts) == pytest.approx(1)


def test_tiled_uformer_shows_no_seam() -> None:
    """The places where tiles meet are no further from the untiled result than the others."""
    network, source = create("sglrn-t", width=8).eval(), photo(128, 640)
    for parameter in network.middle.fuse.parameters():
        nn.init.normal_(parameter, std=0.1)
    whole = restore(network, source.tensor())
    target = source.blank_like()
    TiledRestorer(network, precision="fp32", statistics="whole", tile=182).restore(source, target)
    error = (target.tensor() - whole).abs().amax(0)
    columns = error.amax(0)
    jumps = (target.tensor() - whole).diff(dim=-1).abs().amax((0, 1))
    assert columns.max() > 0, "there were tiles"
    at_borders = torch.zeros(640, dtype=torch.bool)
    for start in (192, 256, 384, 448):
        at_borders[start - 2 : start + 2] = True
    assert jumps[at_borders[1:]].max() <= 1.5 * jumps[~at_borders[1:]].max()


def test_peak_bytes_counts_what_lives() -> None:
    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept = x + 1
            for _ in range(5):
                x = x * 2  # the one before is freed
            return x + kept

    x = torch.zeros(1000)
    assert memory.peak_bytes(Chain(), x) in range(3 * 4000, 4 * 4000 + 1)


def test_peak_bytes_loads_no_compiler() -> None:
    program = (
        "import sys, torch; from unsmear.models.memory import peak_bytes; "
        "peak_bytes(torch.nn.Linear(2, 2), torch.zeros(1, 2)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_memory_limit_of_a_control_group(tmp_path: Path) -> None:
    group = tmp_path / "cgroup" / "service" / "job"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("700\n")
    (group.parent / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    (tmp_path / "membership").write_text("0::/service/job\n")
    assert list(memory._cgroup_rooms(tmp_path / "cgroup", tmp_path / "membership")) == [450]
    assert list(memory._cgroup_rooms(tmp_path / "cgroup", tmp_path / "missing")) == []
    assert 0 < memory.available_memory(torch.device("cpu")) < 2**50
