"""MSCNN and DeblurGAN: the layouts of the public codes, written anew in oracles.py, with random weights."""

import pytest
import torch
from oracles import official_deblurgan, official_mscnn, randomise
from skimage.transform import pyramid_gaussian
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.errors import ModelError
from unsmear.models import create
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.convert import convert, fill

SIZES = {"deblurgan": {}, "deblurgan-public": {"whole": False}}


def image(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mscnn():
    """With biases of the size that pictures in [0, 255] ask for."""
    model = randomise(official_mscnn())
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data *= 255
    return model.requires_grad_(False)


def test_mscnn_computes_what_the_official_code_does(mscnn, tmp_path):
    source = tmp_path / "model-1000.pt"
    torch.save({"G": mscnn.state_dict()}, source)
    output = tmp_path / "mscnn.safetensors"
    done = CliRunner().invoke(app, ["convert", str(source), "--as", "mscnn", "-o", str(output)])
    assert done.exit_code == 0, done.output
    ours = load_checkpoint(output)
    x = image(16, 24)
    pyramid = pyramid_gaussian(x[0].permute(1, 2, 0).numpy() * 255, 2, channel_axis=-1)
    pictures = [torch.from_numpy(picture).float().permute(2, 0, 1)[None] for picture in pyramid]
    expected = mscnn(pictures)
    with torch.inference_mode():
        found = ours.train()(x)
    for one, other in zip(reversed(expected), found, strict=True):
        assert (one / 255 - 0.5).std() > 0.01
        torch.testing.assert_close(other, one / 255, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_deblurgan_computes_what_the_public_code_does(name, tmp_path):
    official = randomise(official_deblurgan(**SIZES[name]))
    weights = official.state_dict()
    weights |= {"model.2.running_mean": torch.ones(64), "model.2.num_batches_tracked": torch.tensor(3)}
    torch.save(weights, tmp_path / "latest_net_G.pth")
    ours, _ = convert(tmp_path / "latest_net_G.pth", name, tmp_path / "out.safetensors")
    x = image(32, 40)
    with torch.inference_mode():
        expected, found = (official(x * 2 - 1) + 1) / 2, ours(x)
    assert (expected - x).std() > 0.05
    assert (expected - found).abs().max() < 1e-4


def test_the_two_sizes_of_deblurgan_are_told_apart(tmp_path):
    torch.save(official_deblurgan(whole=False).state_dict(), tmp_path / "G.pth")
    words = "9 blocks of one convolution, not deblurgan; that is deblurgan-public"
    with pytest.raises(ModelError, match=words):
        convert(tmp_path / "G.pth", "deblurgan", tmp_path / "out.safetensors")


def test_an_mscnn_of_another_size_or_network_is_named(tmp_path):
    torch.save(official_mscnn(width=8, blocks=2).state_dict(), tmp_path / "small.pt")
    with pytest.raises(ModelError, match="an MSCNN of 3 scales, width 8 and 2 blocks, not mscnn; no network"):
        convert(tmp_path / "small.pt", "mscnn", tmp_path / "out.safetensors")
    with pytest.raises(ModelError, match=r"not an official DeblurGAN; expected names as model\.1\.weight"):
        convert(tmp_path / "small.pt", "deblurgan", tmp_path / "out.safetensors")
    with pytest.raises(ModelError, match="srn: no official weights of it are known to us"):
        convert(tmp_path / "small.pt", "srn", tmp_path / "out.safetensors")


def test_what_does_not_fit_is_named(mscnn):
    weights = mscnn.state_dict()
    del weights["conv_end_models.2.uppath.0.bias"]
    with pytest.raises(ModelError, match=r"missing: conv_end_models\.2\.uppath\.0\.bias$"):
        fill(create("mscnn"), weights)
