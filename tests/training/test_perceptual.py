import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unsmear.errors import RecipeError, TrainingError
from unsmear.training import train
from unsmear.training.losses import find_loss
from unsmear.training.perceptual import perceptual_loss

CPU = torch.device("cpu")
SHAPES = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
}
"""Convolutions of torchvision's vgg19.features up to conv3_3, by their numbers: (out, in)."""


@pytest.fixture(scope="module")
def weights():
    """Random weights under torchvision's names, those behind conv3_3 and of the classifier too."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, (out, into) in {**SHAPES, 16: (256, 256)}.items():
        noise = torch.randn(out, into, 3, 3, generator=generator)
        tensors[f"features.{number}.weight"] = noise * (2 / (9 * into)) ** 0.5
        tensors[f"features.{number}.bias"] = torch.randn(out, generator=generator) * 0.1
    return {**tensors, "classifier.0.weight": torch.zeros(2, 2)}


def seen(weights, image):
    """VGG19 up to conv3_3, written out."""
    conv = lambda x, n: nn.functional.conv2d(  # noqa: E731
        x, weights[f"features.{n}.weight"], weights[f"features.{n}.bias"], padding=1
    )
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 3, 1, 1)
    x = (image - mean) / std
    x = nn.functional.max_pool2d(conv(conv(x, 0).relu(), 2).relu(), 2)
    x = nn.functional.max_pool2d(conv(conv(x, 5).relu(), 7).relu(), 2)
    return conv(conv(conv(x, 10).relu(), 12).relu(), 14)


@pytest.mark.parametrize("form", ["pth", "safetensors", "features alone"])
def test_it_is_the_distance_of_conv3_3(weights, tmp_path, form):
    path = tmp_path / f"vgg19.{form}"
    if form == "safetensors":
        save_file(weights, path)
    elif form == "pth":
        torch.save(weights, path)
    else:
        torch.save({n.removeprefix("features."): t for n, t in weights.items() if "features" in n}, path)
    generator = torch.Generator().manual_seed(1)
    restored, sharp = torch.rand(2, 2, 3, 16, 12, generator=generator)
    loss = perceptual_loss(path, CPU)
    expected = (seen(weights, restored) - seen(weights, sharp)).square().mean()
    torch.testing.assert_close(loss(restored, sharp), expected)
    assert expected > 0.01
    assert loss(sharp, sharp) == 0
    restored.requires_grad_()
    loss(restored, sharp).backward()
    assert restored.grad.any()


class Malicious:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_other_files_are_refused_in_a_sentence(weights, tmp_path, capsys):
    torch.save({"a": Malicious()}, tmp_path / "code.pth")
    torch.save({n: t for n, t in weights.items() if ".12." not in n}, tmp_path / "cut.pth")
    torch.save(weights | {"features.0.bias": torch.zeros(3)}, tmp_path / "shape.pth")
    for name, words in {
        "missing.pth": "vgg: .*No such file.*as torchvision hands them out",
        "code.pth": "could run code",
        "cut.pth": r"does not hold the weights of a VGG19; missing: features.12.bias",
        "shape.pth": "of another shape: features.0.bias",
    }.items():
        with pytest.raises(RecipeError, match=words):
            perceptual_loss(tmp_path / name, CPU)
    assert "never" not in capsys.readouterr().out


def test_a_training_with_it(recipe, weights, tmp_path):
    torch.save(weights, tmp_path / "vgg19.pth")
    values = {"loss": "perceptual", "vgg": str(tmp_path / "vgg19.pth"), "iterations": 1}
    train(recipe(**values))
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "vgg19.pth").rename(tmp_path / "moved" / "vgg19.pth")
    train(recipe(**values | {"vgg": str(moved), "iterations": 2}), resume=True)
    torch.save(weights | {"features.0.bias": torch.zeros(64)}, moved)
    with pytest.raises(TrainingError, match="data: vgg_sha256 was"):
        train(recipe(**values | {"vgg": str(moved), "iterations": 3}), resume=True)
    with pytest.raises(RecipeError, match="No such file"):
        find_loss(recipe(**values | {"vgg": str(tmp_path / "gone.pth")}), CPU)
