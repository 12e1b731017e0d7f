"""Networks in onnxruntime give what ours give, at sizes that the export did not see."""

import json
from importlib.util import find_spec

import pytest
import torch
from oracles import randomise
from torch import nn
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.errors import ModelError
from unsmear.models import create
from unsmear.models.checkpoints import HEADER_KEY, save_checkpoint
from unsmear.models.low_rank import eliminated
from unsmear.models.onnx_export import export_onnx
from unsmear.models.uformer import WINDOW, LeWinBlock

TINY = {"encoder": (1,), "decoder": (1,)}

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="extra onnx"
)


def test_elimination_solves_as_a_factorisation_does():
    s = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram, right = s.mT @ s / 40 + 1e-4 * torch.eye(6), s.mT @ torch.randn(2, 40, 9, dtype=torch.float64)
    torch.testing.assert_close(eliminated(gram, right), torch.linalg.solve(gram, right))


def test_elimination_of_float32_stays_exact_at_the_ridge():
    # Two equal columns: what keeps G from being singular is the ridge alone.
    s = torch.randn(1, 400, 64, generator=torch.Generator().manual_seed(0))
    s[..., 1] = s[..., 0]
    gram = s.mT @ s / 400 + 1e-4 * torch.eye(64)
    right = s.mT @ torch.randn(1, 400, 32, generator=torch.Generator().manual_seed(1)) / 400
    exact = torch.linalg.solve(gram.double(), right.double())
    error = (s @ eliminated(gram, right) - s.double() @ exact).norm() / (s.double() @ exact).norm()
    assert error < 1e-3


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_network_with_the_module_at_three_sizes(tmp_path):
    import onnxruntime

    model = randomise(create("nafnet-16", low_rank=True, **TINY)).eval()
    save_checkpoint(model, tmp_path / "a.safetensors")
    output = tmp_path / "a.onnx"
    done = CliRunner().invoke(app, ["onnx", str(tmp_path / "a.safetensors"), "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "sides in multiples of 2 from 4 up" in done.output
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    for height, width in ((4, 4), (18, 30), (64, 10)):
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = model(image)
        (restored,) = session.run(["restored"], {"blurred": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(restored), expected, atol=1e-4, rtol=1e-4)
    facts = json.loads(session.get_modelmeta().custom_metadata_map[HEADER_KEY])
    assert facts["model"] == "nafnet-16" and facts["size_multiple"] == 2
    again = CliRunner().invoke(app, ["onnx", str(tmp_path / "a.safetensors"), "-o", str(output)])
    assert again.exit_code == 1 and "replace it by --overwrite" in again.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.safetensors"]


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_deformable_convolutions_at_another_size(tmp_path):
    """No loop over bands of rows is written down with the example's count: RADN's export was refused so."""
    import onnxruntime
    from torch.export import Dim

    from unsmear.models.deformable import DeformableConv2d

    layer = randomise(DeformableConv2d(channels=4, out_channels=3)).eval()
    sides = {2: Dim("height", min=8), 3: Dim("width", min=8)}
    example = (torch.rand(1, 4, 64, 48),)
    file = tmp_path / "layer.onnx"
    torch.onnx.export(layer, example, str(file), dynamo=True, dynamic_shapes=(sides,))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    image = torch.rand(1, 4, 40, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layer(image)
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


class ShiftedWindows(nn.Module):
    """A shifted block of Uformer between two convolutions: in the export, with its deepest stage's sizes."""

    size_multiple = minimum_size = WINDOW

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 1)
        self.block = LeWinBlock(channels=8, heads=2, shift=True, modulator=True, drop_path=0)
        self.leave = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        features = self.block(self.enter(image).permute(0, 2, 3, 1))
        return self.leave(features.permute(0, 3, 1, 2))


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_shifted_windows_at_other_sizes(tmp_path):
    """No count of windows is written down with the example's: one between two cut ones was."""
    import onnxruntime

    model = randomise(ShiftedWindows()).eval()
    export_onnx(model, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for height, width in ((16, 16), (16, 40), (56, 24)):
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = model(image)
        (restored,) = session.run(None, {"blurred": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(restored), expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_written_is_said(tmp_path):
    model = create("nafnet-16", **TINY)
    with pytest.raises(ModelError, match="expected a name that ends in"):
        export_onnx(model, tmp_path / "a.pt")
    model.not_in_onnx = "its loops depend on the size"
    with pytest.raises(ModelError, match="NAFNet cannot be exported to ONNX: its loops depend on the size"):
        export_onnx(model, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="how many windows its means are over depends on the size"):
        export_onnx(create("nafnet-16", local_window=40, **TINY), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_an_export_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("unsmear.models.onnx_export._difference", lambda *_: float("nan"))
    monkeypatch.setattr("unsmear.models.onnx_export._write", lambda _, path: path.write_bytes(b"x"))
    with pytest.raises(ModelError, match="differs by nan"):
        export_onnx(create("nafnet-16", **TINY), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
