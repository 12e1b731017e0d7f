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
