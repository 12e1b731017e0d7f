"""The splitting against the same steps written out with whole matrices' worth of rolls and divisions."""

import pytest
import torch

from unsmear.basis.kernels import identity
from unsmear.estimation.spectra import difference_power, kernel_spectrum
from unsmear.estimation.splitting import shortened, split

SIZE = (20, 27)


def written_out(picture, explained, power, penalties, weight):
    for penalty in penalties:
        right, down = picture.roll(-1, -1) - picture, picture.roll(-1, -2) - picture
        energy = right**2 + down**2
        energy = energy if energy.ndim == 2 else energy.sum(0)
        kept = (1 - weight / penalty / energy.sqrt().clamp_min(1e-6)).clamp_min(0)
        right, down = right * kept, down * kept
        back = right.roll(1, -1) - right + down.roll(1, -2) - down
        spectrum = explained + penalty * torch.fft.rfft2(back)
        picture = torch.fft.irfft2(spectrum / (power + penalty * difference_power(SIZE)), s=SIZE)
    return picture


@pytest.mark.parametrize("colours", [(), (3,)])
def test_equals_the_steps_written_out(colours) -> None:
    random = torch.Generator().manual_seed(0)
    seen = torch.rand(*colours, *SIZE, generator=random)
    kernel = torch.rand(5, 5, generator=random)
    response = kernel_spectrum(kernel / kernel.sum(), SIZE)
    explained, power = response.conj() * torch.fft.rfft2(seen), response.abs().square()
    penalties = [0.02 * 2**step for step in range(6)]
    before = seen.clone(), explained.clone(), power.clone()
    found = split(seen, explained, power, difference_power(SIZE), penalties, shortened(0.02))
    wanted = written_out(seen, explained, power, penalties, 0.02)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    assert (found - seen).abs().max() > 0.1
    for given, old in zip((seen, explained, power), before, strict=True):
        assert torch.equal(given, old)  # what it was given is as it was


def test_lowers_the_sum_that_total_variation_minimises() -> None:
    """½ ‖u − v‖² + w Σ |∇u| for k = δ: less at the result than at v, at its mean, and at results moved on."""
    random = torch.Generator().manual_seed(1)
    seen = (torch.rand(SIZE, generator=random) > 0.5).float() * 0.5 + 0.1 * torch.rand(SIZE, generator=random)
    response = kernel_spectrum(torch.from_numpy(identity(3)).float(), SIZE)
    explained, power = response.conj() * torch.fft.rfft2(seen), response.abs().square()
    weight = 0.05

    def cost(u: torch.Tensor) -> float:
        right, down = u.roll(-1, -1) - u, u.roll(-1, -2) - u
        return float(0.5 * (u - seen).square().sum() + weight * (right**2 + down**2).sqrt().sum())

    penalties = [weight * 1.3**step for step in range(40)]
    found = split(seen, explained, power, difference_power(SIZE), penalties, shortened(weight))
    others = [seen, seen.mean().expand(SIZE), 0.9 * found + 0.1 * seen, 1.1 * found - 0.1 * seen]
    assert cost(found) < min(cost(other) for other in others)
