import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from unsmear.basis.kernels import camera_shake, identity
from unsmear.blurring import blur
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.judging import CELL, shares


class Still(nn.Module):
    """Leaves a picture as it is."""

    image_channels = 9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_checkpoint("guided-s").eval()


@pytest.fixture(scope="module")
def kernels() -> list[torch.Tensor]:
    return [
        torch.from_numpy(camera_shake(np.random.default_rng(seed), size, length=11.0))
        for seed, size in ((3, 17), (11, 21))
    ]


def test_each_kernel_has_its_share_where_it_blurred(network, kernels) -> None:
    sharp = torch.from_numpy(skimage.data.astronaut()[100:356]).permute(2, 0, 1).float() / 255
    right = torch.zeros(sharp.shape[1:])
    right[:, sharp.shape[2] // 2 :] = 1
    padded = torch.zeros(2, 21, 21)
    padded[0, 2:-2, 2:-2], padded[1] = kernels[0], kernels[1]
    blurred = blur(sharp, padded, torch.stack([1 - right, right]))
    found = shares(blurred, [*kernels, torch.from_numpy(identity())], network, precision="fp32")
    rows, columns = (size // CELL for size in blurred.shape[1:])
    assert found.shape == (3, rows, columns)
    assert torch.allclose(found.sum(0), torch.ones(rows, columns), atol=1e-5) and found.min() >= 0
    middle = columns // 2
    left, other = found[:, :, : middle - 4].mean((1, 2)), found[:, :, middle + 4 :].mean((1, 2))
    assert left[0] > 0.6 and other[1] > 0.55
    assert max(left[2], other[2]) < 0.1  # no blur at all explains nothing


def test_a_picture_of_one_colour_has_shares_too(network, kernels) -> None:
    for judge in (network, Still()):  # the second moves nothing: all scores are alike
        found = shares(torch.full((3, 64, 96), 0.5), kernels, judge, precision="fp32")
        assert found.isfinite().all() and torch.allclose(found.sum(0), torch.ones(8, 12), atol=1e-5)
