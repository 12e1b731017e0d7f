"""One picture: what goes in comes out again, sharper."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor, nn

import unsmear
from unsmear.basis.kernels import linear_motion
from unsmear.deblurring import DEFAULT_MODEL, gradient_energy
from unsmear.errors import ModelError, UnreadablePhoto
from unsmear.metrics import psnr_rgb
from unsmear.models import create
from unsmear.models.checkpoints import save_checkpoint, shipped_checkpoints
from unsmear.photo import Photo, read_photo, write_photo


class Invert(nn.Module):
    """Gives the negative: nobody takes it for the input."""

    size_multiple, minimum_size, global_context = 16, 16, False

    def forward(self, image: Tensor) -> Tensor:
        return 1 - image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (1, 1, 3), (40, 20, 3), (5, 7, 4)])
def test_an_array_comes_back_as_an_array(shape: tuple[int, ...], dtype: Any) -> None:
    random = np.random.default_rng(0)
    most = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    array = (random.random(shape) * most).astype(dtype)
    given = array.copy()
    result = unsmear.deblur(array, model=Invert())
    assert result.dtype == dtype and result.shape == shape
    expected = most - array
    if len(shape) == 3 and shape[2] in (2, 4):
        expected[..., -1] = array[..., -1]
    np.testing.assert_allclose(result, expected, atol=1e-6 if most == 1 else 0)
    assert np.array_equal(array, given), "what is given is left as it is"


@pytest.mark.parametrize("shape", [(3, 9, 9), (2, 3, 9, 20), (1, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_tensor_comes_back_as_a_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.rand(shape, dtype=torch.float64).to(dtype)
    result = unsmear.deblur(tensor, model=Invert())
    assert result.dtype == dtype
    torch.testing.assert_close(result, 1 - tensor, rtol=0, atol=1e-3)


def test_tensors_in_tiles_and_of_any_layout() -> None:
    tensor = torch.rand(100, 130, 3).permute(2, 0, 1)
    result = unsmear.deblur(tensor, model=Invert(), tile=32)
    torch.testing.assert_close(result, 1 - tensor, rtol=0, atol=1e-6)


def test_a_path_gives_a_photo_and_a_photo_keeps_what_it_knows(tmp_path: Path) -> None:
    pixels = skimage.data.coffee()[:50, :60]
    write_photo(Photo(pixels=pixels, metadata={"xmp-data": b"<x/>"}), tmp_path / "a.png")
    result = unsmear.deblur(tmp_path / "a.png", model=Invert())
    assert isinstance(result, Photo) and np.array_equal(result.pixels, 255 - pixels)
    assert result.metadata == read_photo(tmp_path / "a.png").metadata
    assert np.array_equal(unsmear.deblur(result, model=Invert()).pixels, pixels)


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (np.zeros((3, 10, 10), np.uint8), UnreadablePhoto),
        (np.zeros((0, 4, 3), np.uint8), UnreadablePhoto),
        (np.zeros((4, 4, 3), np.int64), UnreadablePhoto),
        (np.full((4, 4, 3), 255.0), ValueError),
        (np.full((4, 4, 3), np.nan), ValueError),
        (np.zeros((3, 10, 10), np.float32), UnreadablePhoto),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError),
        (torch.zeros(4, 4, 3), ValueError),
        (torch.full((3, 4, 4), 1.5), ValueError),
        ([[1, 2]], TypeError),
    ],
)
def test_what_is_no_picture(picture: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        unsmear.deblur(picture, model=Invert())


def test_no_such_model_or_device(tmp_path: Path) -> None:
    tensor = torch.zeros(3, 4, 4)
    with pytest.raises(ModelError, match="no-such"):
        unsmear.deblur(tensor, model="no-such")
    with pytest.raises(ModelError, match="'': neither"):
        unsmear.deblur(tensor, model="")
    for device in ("nonsense", "cuda:77", "meta"):
        with pytest.raises(ModelError, match=f"device: '{device}' is not here .*; try 'cpu'"):
            unsmear.deblur(tensor, model=Invert(), device=device)
    for tile in (0, -5):
        with pytest.raises(ModelError, match=f"tile is {tile}"):
            unsmear.deblur(tensor, model=Invert(), tile=tile)


def test_not_a_number_is_named() -> None:
    for picture in (np.full((4, 4, 3), np.nan), torch.full((3, 4, 4), torch.nan)):
        with pytest.raises(ValueError, match="NaN"):
            unsmear.deblur(picture, model=Invert())


def test_a_checkpoint_file_is_loaded_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsmear.deblurring import pictures

    path, loads = tmp_path / "tiny.safetensors", []
    network = create("sglrn-t", width=8)
    save_checkpoint(network, path, {})
    real = pictures.load_checkpoint
    monkeypatch.setattr(pictures, "load_checkpoint", lambda source: loads.append(source) or real(source))
    tensor = torch.rand(3, 20, 20)
    first = unsmear.deblur(tensor, model=path, precision="fp32")
    assert torch.equal(unsmear.deblur(tensor, model=str(path), precision="fp32"), first)
    assert len(loads) == 1
    nn.init.normal_(network.leave.weight)
    save_checkpoint(network, path, {})
    assert not torch.equal(unsmear.deblur(tensor, model=path, precision="fp32"), first)
    assert len(loads) == 2


def test_gradient_energy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 40, 1), np.uint8)
    values = pixels[..., 0] / 255
    expected = np.mean(np.diff(values, axis=0) ** 2) + np.mean(np.diff(values, axis=1) ** 2)
    assert gradient_energy(Photo(pixels=pixels)) == pytest.approx(expected, rel=1e-5)
    assert gradient_energy(Photo(pixels=pixels.repeat(3, 2))) == pytest.approx(expected, rel=1e-5)
    assert gradient_energy(Photo(pixels=np.zeros((1, 1, 3), np.uint16))) == 0


@pytest.mark.skipif(DEFAULT_MODEL not in shipped_checkpoints(), reason="the package has no weights yet")
def test_a_known_photo_that_was_blurred_gets_sharper_and_nearer_to_the_truth() -> None:
    sharp = torch.from_numpy(skimage.data.coffee()[:384, :512] / 255.0).float().permute(2, 0, 1)
    kernel = linear_motion(9, 0.5, 17)
    blurred = unsmear.blur(sharp, torch.as_tensor(kernel)[None], torch.ones(1, 384, 512)).clamp(0, 1)
    restored = unsmear.deblur(blurred)
    assert psnr_rgb(restored, sharp) > psnr_rgb(blurred, sharp) + 0.1
    energies = [
        gradient_energy(Photo(pixels=(x.permute(1, 2, 0).numpy() * 255).astype(np.uint8)))
        for x in (blurred, restored)
    ]
    assert energies[1] > 1.1 * energies[0]
