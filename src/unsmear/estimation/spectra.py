"""Spectra of periodic pictures: the quick way to blur, to unblur and to correlate with one kernel."""

import torch
from torch import Tensor

from unsmear.blurring import good_length

Size = tuple[int, int]


def fast_size(height: int, width: int) -> Size:
    """Return the next sizes of which a Fourier transform is quick (no prime factor above 5)."""
    return good_length(height), good_length(width)


def kernel_spectrum(kernels: Tensor, size: Size) -> Tensor:
    """Spectrum X of a kernel, so that irfft2(X · rfft2(u)) is Σ_p k(p) u(i + p), u periodic (a correlation).

    (…, K, K), K odd and at most the size, to (…, H, W//2 + 1).
    """
    side = kernels.shape[-1]
    wide = kernels.new_zeros(*kernels.shape[:-2], *size)
    wide[..., :side, :side] = kernels
    spectrum: Tensor = torch.fft.rfft2(wide.roll((-(side // 2), -(side // 2)), (-2, -1)))
    return spectrum.conj()


def inverse(spectrum: Tensor, size: Size) -> Tensor:
    """The picture (…, H, W) of a spectrum (…, H, W//2 + 1), one after the other where there are several.

    MKL takes up to twice as long for pictures of a megapixel or more if it is given three at once.
    """
    if spectrum.ndim == 2:
        picture: Tensor = torch.fft.irfft2(spectrum, s=size)
        return picture
    return torch.stack([inverse(each, size) for each in spectrum])


def difference_power(size: Size) -> Tensor:
    """|F ∂x|² + |F ∂y|² of the forward differences of a periodic picture: 4 sin²(ω/2), both directions."""
    down = 4 * (torch.pi * torch.fft.fftfreq(size[0])).sin().square()
    right = 4 * (torch.pi * torch.fft.rfftfreq(size[1])).sin().square()
    power: Tensor = down[:, None] + right
    return power


def periodic(image: Tensor, size: Size) -> Tensor:
    """Continue a picture to `size` so that it can be repeated: both ends mirrored and faded into each other.

    (…, H, W) to (…, *size), the picture in the upper left corner. Without the fade the jump at the border
    would be an edge that no blur explains.
    """
    for dim, length in ((-2, size[0]), (-1, size[1])):
        old = image.shape[dim]
        more = torch.arange(length - old, device=image.device)
        ahead = image.index_select(dim, (old - 2 - more).clamp_min(0))
        behind = image.index_select(dim, (len(more) - more).clamp_max(old - 1))
        part = (more + 1) / (len(more) + 1)
        part = (part * part * (3 - 2 * part)).to(image.dtype)
        part = part[:, None] if dim == -2 else part
        image = torch.cat([image, torch.lerp(ahead, behind, part)], dim)
    return image


class Toeplitz:
    """Quadratic forms of kernels that see only how far two taps lie apart: (H k)(p) = Σ_q c(p − q) k(q).

    The normal equations of a kernel are of this kind: c(d) = Σ_i w(i) x(i) x(i + d) for a picture x.
    """

    def __init__(self, correlations: Tensor) -> None:
        """Take c, (…, 2K−1, 2K−1) with lag 0 in the middle, for kernels of K×K taps."""
        far = correlations.shape[-1] // 2
        self.side = far + 1
        self.length = fast_size(3 * far + 1, 3 * far + 1)
        wide = correlations.new_zeros(*correlations.shape[:-2], *self.length)
        wide[..., : 2 * far + 1, : 2 * far + 1] = correlations
        self.power = torch.fft.rfft2(wide.roll((-far, -far), (-2, -1))).real

    def product(self, kernels: Tensor) -> Tensor:
        """Return H k for kernels (…, K, K)."""
        spectrum = torch.fft.rfft2(kernels, s=self.length)
        wide: Tensor = torch.fft.irfft2(self.power * spectrum, s=self.length)
        return wide[..., : self.side, : self.side]
