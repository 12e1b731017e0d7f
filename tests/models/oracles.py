"""Other people's networks to compare ours with, and weights that leave no term at zero."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from contextlib import contextmanager

import pytest
import torch


class _Nothing(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Nothing(spec.name)

    def exec_module(self, module):
        pass


@contextmanager
def torchvision_or_nothing():
    """Answer imports of torchvision with empty modules if it is not installed; forget them afterwards.

    spandrel imports it for architectures that are none of ours.
    """
    if importlib.util.find_spec("torchvision"):
        yield
        return
    sys.meta_path.insert(0, finder := _Finder())
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]


def spandrel_uformer(*, width, depths, image_size=256):
    """The official Uformer as spandrel has it, in evaluation mode; skips the test where that is absent."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    with torchvision_or_nothing():
        from spandrel.architectures.Uformer import Uformer
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        return Uformer(img_size=image_size, embed_dim=width, depths=list(depths), modulator=True).eval()


def spandrel_nafnet(*, width, encoder=(1, 1, 1, 28), bottleneck=1, decoder=(1, 1, 1, 1)):
    """The official NAFNet as spandrel has it, in evaluation mode; skips the test where that is absent."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    with torchvision_or_nothing():
        from spandrel.architectures.NAFNet import NAFNet
    blocks = {"middle_blk_num": bottleneck, "enc_blk_nums": list(encoder), "dec_blk_nums": list(decoder)}
    return NAFNet(width=width, **blocks).eval()


def randomise(model, seed=0):
    """Fill every weight that a training would move: biases, norms, relative positions, modulators too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 1.0 if "bias_table" in name or "modulator" in name else 0.1 if parameter.ndim == 1 else 0
        if parameter.ndim > 1 and scale == 0:  # keeps the features' size from layer to layer
            scale = 0.7 / (parameter[0].numel() ** 0.5)
        parameter.data = scale * noise + (1 if name.endswith(("norm1.weight", "norm2.weight")) else 0)
    return model


def official_mscnn(*, width=64, blocks=19):
    """MSCNN in the layout of DeepDeblur-PyTorch (names, order of scales, range 0 to 255), written anew.

    Call it with the three blurred pictures, fine to coarse; it gives the restored ones, fine to coarse.
    """
    from torch import nn

    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            convolutions = [nn.Conv2d(width, width, 5, padding=2) for _ in range(2)]
            self.body = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1])

        def forward(self, x):
            return x + self.body(x)

    class Holder(nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                self.add_module(name, part)

    class Official(nn.Module):
        def __init__(self):
            super().__init__()

            def body(into):
                outer = nn.Conv2d(into, width, 5, padding=2), nn.Conv2d(width, 3, 5, padding=2)
                return nn.Sequential(outer[0], *(Add() for _ in range(blocks)), outer[1])

            self.body_models = nn.ModuleList(Holder(body=body(into)) for into in (6, 6, 3))
            up = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.PixelShuffle(2))
            again = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.PixelShuffle(2))
            self.conv_end_models = nn.ModuleList([None, Holder(uppath=up), Holder(uppath=again)])

        def forward(self, pyramid):
            fine, half, quarter = (picture - 127.5 for picture in pyramid)
            third = self.body_models[2].body(quarter)
            into = torch.cat((half, self.conv_end_models[2].uppath(third)), 1)
            second = self.body_models[1].body(into)
            into = torch.cat((fine, self.conv_end_models[1].uppath(second)), 1)
            return [x + 127.5 for x in (self.body_models[0].body(into), second, third)]

    return Official()


def official_deblurgan(*, width=64, blocks=9, dropout=True, whole=True):
    """DeblurGAN's generator in the layout of the public code (model.N), written anew; in and out in [-1, 1].

    In evaluation mode without its dropout; its norms take the statistics of the picture, as its test does.
    """
    from torch import nn

    class Add(nn.Module):
        def __init__(self, channels):
            super().__init__()
            chain = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
            chain += [nn.ReLU()] + [nn.Dropout(0.5)] * dropout
            if whole:
                chain += [
                    nn.ReflectionPad2d(1),
                    nn.Conv2d(channels, channels, 3),
                    nn.InstanceNorm2d(channels),
                ]
            self.conv_block = nn.Sequential(*chain)

        def forward(self, x):
            return x + self.conv_block(x)

    def normed(convolution):
        return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()]

    class Official(nn.Module):
        def __init__(self):
            super().__init__()
            c, c2, c4 = width, 2 * width, 4 * width
            self.model = nn.Sequential(
                nn.ReflectionPad2d(3),
                *normed(nn.Conv2d(3, c, 7)),
                *normed(nn.Conv2d(c, c2, 3, stride=2, padding=1)),
                *normed(nn.Conv2d(c2, c4, 3, stride=2, padding=1)),
                *(Add(c4) for _ in range(blocks)),
                *normed(nn.ConvTranspose2d(c4, c2, 3, stride=2, padding=1, output_padding=1)),
                *normed(nn.ConvTranspose2d(c2, c, 3, stride=2, padding=1, output_padding=1)),
                nn.ReflectionPad2d(3),
                nn.Conv2d(c, 3, 7),
                nn.Tanh(),
            )

        def forward(self, x):
            return torch.clamp(x + self.model(x), -1, 1)

    return Official().eval()
