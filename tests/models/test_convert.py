import pytest
import torch
from oracles import randomise, spandrel_nafnet, spandrel_uformer
from safetensors.torch import save_file
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.errors import ModelError
from unsmear.models import NETWORKS, create
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.convert import convert, fill
from unsmear.models.official import OFFICIAL, converted
from unsmear.models.uformer import Uformer

DEPTHS = {"t": (2,) * 9, "s": (2,) * 9, "b": (1, 2, 8, 8, 2, 8, 8, 2, 1)}


def made_official(width, depths, **arguments):
    return randomise(spandrel_uformer(width=width, depths=depths, **arguments))


def filled(official, name="uformer-t", **arguments):
    with torch.device("meta"):  # first weights would only be overwritten
        model = create(name, **arguments).eval()
    model.to_empty(device="cpu")
    fill(model, official.state_dict())
    return model


def compare(official, ours, height, width, batch=1):
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = official(image), ours(image)
    assert (expected - image).abs().max() > 0.1  # the network does something
    assert (expected - found).abs().max() < 1e-4


@pytest.fixture(scope="module")
def official():
    return made_official(16, DEPTHS["t"])


def test_uformer_t_computes_what_the_official_one_does(official):
    ours = filled(official)
    compare(official, ours, 256, 256)
    compare(official, ours, 128, 128, batch=2)


@pytest.mark.parametrize("name", ["s", "b"])
def test_uformer_s_and_b_compute_what_the_official_ones_do(name):
    official = made_official(32, DEPTHS[name])
    compare(official, filled(official, f"uformer-{name}"), 128, 128)


def test_other_depths_compute_what_the_official_code_does():
    depths = (1, 2, 3, 1, 2, 1, 3, 2, 1)
    official = made_official(16, depths)
    compare(official, filled(official, depths=depths), 128, 128)


def test_training_path_computes_what_the_official_code_does():
    official = made_official(16, (1,) * 9)
    ours = filled(official, depths=(1,) * 9)
    image = torch.rand(1, 3, 128, 128)
    torch.testing.assert_close(ours(image), official(image), atol=1e-4, rtol=0)


def test_every_weight_of_ours_has_official_names_and_none_is_used_twice():
    with torch.device("meta"):
        ours = [name for name in create("uformer-b").state_dict()]
    theirs = [theirs for name in ours for theirs in OFFICIAL[Uformer].names(name)]
    assert (
        len(theirs) == len(set(theirs)) == len(ours) + 2 * sum(DEPTHS["b"])
    )  # to_q and to_kv are one of ours


def as_saved_by_its_training(official):
    weights = {f"module.{name}": tensor for name, tensor in official.state_dict().items()}
    return {"epoch": 3000, "state_dict": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 2e-4}]}}


@pytest.fixture(scope="module")
def pth(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "Uformer_T.pth"
    torch.save(as_saved_by_its_training(official), path)
    return path


def test_command_converts_a_training_checkpoint(official, pth, tmp_path):
    output = tmp_path / "uformer-t.safetensors"
    done = CliRunner().invoke(app, ["convert", str(pth), "--as", "uformer-t", "-o", str(output)])
    assert done.exit_code == 0, done.output
    ours = load_checkpoint(output)
    assert ours.header["converted_from"] == "Uformer_T.pth"
    compare(official, ours, 128, 128)
    again = CliRunner().invoke(app, ["convert", str(pth), "--as", "uformer-t", "-o", str(output)])
    assert again.exit_code == 1
    assert "replace it by --overwrite" in again.output
    other = CliRunner().invoke(app, ["convert", str(pth), "--as", "uformer-t", "-o", str(tmp_path / "b.pth")])
    assert other.exit_code == 1 and "b.pth: a checkpoint is a safetensors file" in other.output


def test_bare_safetensors_convert_too(official, tmp_path):
    source = tmp_path / "weights.safetensors"
    save_file(official.state_dict(), source)
    ours, said = convert(source, "uformer-t", tmp_path / "out.safetensors")
    assert "uformer-t" in said
    compare(official, ours, 128, 128)


def test_low_rank_variant_keeps_its_module_at_the_identity(official, pth, tmp_path):
    ours, said = convert(pth, "sglrn-t", tmp_path / "out.safetensors")
    assert "low-rank module is untrained" in said
    compare(official, load_checkpoint(tmp_path / "out.safetensors"), 128, 128)
    assert not ours.middle.fuse.weight.any()


@pytest.mark.parametrize("name", ["uformer-s", "uformer-b", "sglrn-b"])
def test_another_size_is_refused_with_the_name_that_fits(name, pth, tmp_path):
    with pytest.raises(ModelError, match=rf"width 16 .* not {name}; that is uformer-t"):
        convert(pth, name, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def broken(kind, weights):
    name = "decoderlayer_1.blocks.1.mlp.linear2.0.weight"
    if kind == "missing":
        del weights[name]
    elif kind == "unexpected":
        weights["encoderlayer_0.blocks.0.cross_modulator.weight"] = torch.zeros(64, 16)
    elif kind == "shape":
        weights[name] = weights[name].T.contiguous()
    elif kind == "bias table of another window":
        weights["conv.blocks.0.attn.relative_position_bias_table"] = torch.zeros(49, 16)
    elif kind == "no modulators":
        weights = {name: tensor for name, tensor in weights.items() if "modulator" not in name}
    return weights


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", r"missing: decoderlayer_1\.blocks\.1\.mlp\.linear2\.0\.weight$"),
        ("unexpected", r"unexpected: encoderlayer_0\.blocks\.0\.cross_modulator\.weight$"),
        ("shape", r"linear2\.0\.weight \(512, 128\) instead of \(128, 512\)$"),
        ("bias table of another window", r"bias_table \(49, 16\) instead of \(225, 16\)$"),
        ("no modulators", r"missing: decoderlayer_0.* and 5 more$"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_changes(kind, expected, official):
    model = create("uformer-t")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=expected):
        fill(model, broken(kind, official.state_dict()))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Malicious:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_files_that_are_no_weights_are_refused(tmp_path, capsys):
    paths = {}
    for name, content in {
        "code.pth": {"state_dict": {"a": torch.zeros(1)}, "extra": Malicious()},
        "number.pth": {"state_dict": 3},
        "empty.pth": {},
        "other.pth": {"layer.weight": torch.zeros(2, 2)},
    }.items():
        torch.save(content, paths.setdefault(name, tmp_path / name))
    whole = paths["other.pth"].read_bytes()
    for name, data in {
        "cut.pth": whole[: len(whole) // 2],
        "zero.pth": b"",
        "text.pth": b"no checkpoint at all, just a few words",
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
    }.items():
        paths.setdefault(name, tmp_path / name).write_bytes(data)
    paths |= {"missing.pth": tmp_path / "missing.pth", "folder": tmp_path}
    expected = {
        "code.pth": "could run code",
        "number.pth": "expected names and tensors",
        "empty.pth": "expected names and tensors",
        "other.pth": "not an official Uformer; expected names as .*found layer.weight",
        "missing.pth": "No such file",
        "folder": "Is a directory",
    }
    for name, path in paths.items():
        with pytest.raises(ModelError, match=expected.get(name, "neither .pth nor .safetensors")) as caught:
            convert(path, "uformer-t", tmp_path / "out.safetensors")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out


def test_unknown_name_answers_with_the_nearest(pth, tmp_path):
    with pytest.raises(ModelError, match="uformer-t"):
        convert(pth, "uformert", tmp_path / "out.safetensors")


@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if row.build in OFFICIAL])
def test_every_network_with_official_weights_takes_those_of_its_own_layout(name, tmp_path):
    # Meta tensors: names and shapes there and back, whatever their values.
    with torch.device("meta"):
        model = create(name)
    official = OFFICIAL[type(model)]
    layout = official.layout(model)
    assert official.describe(layout)
    ours = converted(model)
    assert sum(tensor.numel() for tensor in ours.values()) == sum(
        torch.Size(shape).numel() for shape in layout.values()
    )
    fill(model, {n: torch.empty(shape, device="meta") for n, shape in layout.items()})


def test_a_network_without_official_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("unsmear.models.convert.OFFICIAL", {})
    with pytest.raises(ModelError, match="uformer-t: no official weights"):
        convert(tmp_path / "a.pth", "uformer-t", tmp_path / "b.safetensors")


# NAFNet

BLOCKS = {"encoder": (1, 1, 2), "bottleneck": 1, "decoder": (1, 2, 1)}


@pytest.fixture(scope="module")
def official_nafnet():
    return randomise(spandrel_nafnet(width=16, **BLOCKS))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 160)])
def test_nafnet_computes_what_the_official_one_does(official_nafnet, height, width):
    ours = filled(official_nafnet, "nafnet-16", **BLOCKS)
    compare(official_nafnet, ours, height, width, batch=2)


def test_nafnet_of_the_table_computes_what_the_official_one_does():
    official = randomise(spandrel_nafnet(width=16))
    compare(official, filled(official, "nafnet-16"), 64, 48)


def test_nafnet_in_bands_computes_what_the_official_one_does(official_nafnet, monkeypatch):
    ours = filled(official_nafnet, "nafnet-16", **BLOCKS)
    monkeypatch.setattr("unsmear.models.nafnet.BAND_ELEMENTS", 2 * 32 * 64 * 3)  # three rows at the top
    compare(official_nafnet, ours, 64, 64)


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")  # spandrel's
def test_nafnet_trains_as_the_official_one_does(official_nafnet):
    ours = filled(official_nafnet, "nafnet-16", **BLOCKS)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for model in (official_nafnet, ours):
        model.zero_grad()
        (model(image) ** 2).mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
    for name, gradient in gradients[1].items():
        (theirs,) = OFFICIAL[type(ours)].names(name)
        expected = gradients[0][theirs].reshape(gradient.shape)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-3)


def test_nafnet_of_its_training_converts(official_nafnet, tmp_path):
    torch.save({"params": randomise(spandrel_nafnet(width=16)).state_dict()}, tmp_path / "n.pth")
    ours, said = convert(tmp_path / "n.pth", "nafnet-16", tmp_path / "n.safetensors")
    assert "nafnet-16" in said and ours.made_by["model"] == "nafnet-16"
    command = ["convert", str(tmp_path / "n.pth"), "--as", "nafnet-16", "-o", str(tmp_path / "l.safetensors")]
    done = CliRunner().invoke(app, [*command, "--local-window", "384"])
    assert done.exit_code == 0, done.output
    assert load_checkpoint(tmp_path / "l.safetensors").encoder[1][0].window == (192, 192)
    with pytest.raises(ModelError, match=r"NAFNet of width 16 .* not nafnet-32; that is nafnet-16"):
        convert(tmp_path / "n.pth", "nafnet-32", tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=r"not an official Uformer; .* found decoders"):
        convert(tmp_path / "n.pth", "uformer-t", tmp_path / "b.safetensors")
    torch.save({"params": official_nafnet.state_dict()}, tmp_path / "o.pth")
    with pytest.raises(ModelError, match=r"\[1, 1, 2\], 1, \[1, 2, 1\], not nafnet-16; no network of ours"):
        convert(tmp_path / "o.pth", "nafnet-16", tmp_path / "b.safetensors")
