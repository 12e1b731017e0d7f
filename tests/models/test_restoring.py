"""The wrapper: any size in, the same size out, and nothing of the padding in it."""

import pytest
import torch
from torch import Tensor, nn

from unsmear.models import create
from unsmear.models.restoring import native_precision, padded, padded_size, restore


class Echo(nn.Module):
    """Gives back what it is given, and notes the sizes."""

    size_multiple, minimum_size, global_context = 16, 32, False

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        return image * self.gain


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (31, 2), (32, 48), (33, 47), (128, 128)])
def test_every_size_comes_back_as_it_was(size: tuple[int, int]) -> None:
    network, image = Echo(), torch.rand(3, *size)
    assert torch.equal(restore(network, image), image)
    height, width = network.seen[0].shape[-2:]
    assert height % 16 == width % 16 == 0 and min(height, width) >= 32
    assert height - max(size[0], 32) < 16 and width - max(size[1], 32) < 16


def test_padding_reflects_then_repeats() -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 1, 1, 3)
    assert padded(row, 3, 7)[0, 0].tolist() == [[1, 2, 3, 2, 1, 1, 1]] * 3


def test_padded_size() -> None:
    assert [padded_size(Echo(), size) for size in (1, 32, 33, 48)] == [32, 32, 48, 48]


def test_a_batch_is_as_one_by_one() -> None:
    network = create("uformer-t", width=8).eval()
    batch = torch.rand(2, 3, 100, 120)
    alone = torch.stack([restore(network, image) for image in batch])
    torch.testing.assert_close(restore(network, batch), alone, rtol=0, atol=1e-6)


def test_the_result_is_clamped_and_may_go_into_a_graph() -> None:
    restored = restore(Echo(gain=3.0), torch.rand(3, 20, 20))
    assert restored.amin() >= 0 and restored.amax() == 1
    (restored * torch.ones((), requires_grad=True)).sum().backward()


def test_type_is_kept() -> None:
    assert restore(Echo(), torch.rand(3, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("shape", [(3, 0, 4), (4, 8, 8), (8, 8), (1, 1, 3, 8, 8)])
def test_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a picture"):
        restore(Echo(), torch.zeros(shape))


def test_a_network_gives_three_channels_or_as_many_as_it_declares() -> None:
    image, grey = torch.rand(3, 8, 8), nn.Conv2d(3, 1, 1)
    with pytest.raises(ValueError, match="expected 3 channels"):
        restore(grey, image)
    grey.output_channels = 1  # type: ignore[assignment]
    assert restore(grey, image).shape == (1, 8, 8)


def test_bf16_is_near_fp32() -> None:
    network, image = create("uformer-t", width=8).eval(), torch.rand(3, 128, 128)
    exact, coarse = (restore(network, image, precision=precision) for precision in ("fp32", "bf16"))
    assert 0 < (exact - coarse).abs().max() < 0.05


def test_native_precision_is_one_of_the_device() -> None:
    assert native_precision(torch.device("cpu")) in ("fp32", "bf16")
