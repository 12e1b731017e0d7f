import copy
import json
import pickle
import struct

import pytest
import torch
from oracles import randomise
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import unsmear
from unsmear.errors import ModelError
from unsmear.models import create
from unsmear.models.checkpoints import load_checkpoint, save_checkpoint, shipped_checkpoints

SMALL = {"depths": (1,) * 9, "width": 4, "heads": (1,) * 9}


@pytest.fixture(scope="module")
def network():
    """A small network with a low-rank module, all weights random."""
    return randomise(create("uformer-t", low_rank={"reduction": 4, "ridge": 1e-3}, **SMALL)).eval()


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "network.safetensors"
    save_checkpoint(network, path, {"step": 10_000, "recipe": {"learning_rate": 1e-4}, "data": "photographs"})
    return path


def tensors_and_header(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["unsmear"])  # noqa: SIM118


def write(path, tensors, header):
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, path, metadata={"unsmear": text})
    return path


def restored(model):
    with torch.inference_mode():
        return model(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))


def test_saved_and_loaded_restores_the_same(network, saved):
    loaded = load_checkpoint(saved)
    assert not loaded.training
    assert all(torch.equal(network.state_dict()[name], t) for name, t in loaded.state_dict().items())
    assert torch.equal(restored(loaded), restored(network))
    assert loaded.middle.rank == network.middle.rank
    assert loaded.middle.ridge == 1e-3


def test_header_comes_back(saved):
    assert load_checkpoint(saved).header == {
        "version": unsmear.__version__,
        "step": 10_000,
        "recipe": {"learning_rate": 1e-4},
        "data": "photographs",
        "model": "uformer-t",
        "low_rank": {"reduction": 4, "ridge": 1e-3},
        "arguments": {name: list(v) if isinstance(v, tuple) else v for name, v in SMALL.items()},
    }


def test_loaded_saves_again_as_the_same_file(saved, tmp_path):
    loaded = load_checkpoint(saved)
    save_checkpoint(loaded, tmp_path / "again.safetensors", loaded.header)
    tensors, header = tensors_and_header(saved)
    tensors_again, header_again = tensors_and_header(tmp_path / "again.safetensors")
    assert header_again == header
    assert all(torch.equal(tensors[name], tensors_again[name]) for name in tensors)


def test_header_cannot_claim_another_network(network, tmp_path):
    save_checkpoint(network, tmp_path / "a.safetensors", {"model": "uformer-b", "low_rank": False})
    assert load_checkpoint(tmp_path / "a.safetensors").header["model"] == "uformer-t"


def test_half_precision_file_loads_as_float32(network, saved, tmp_path):
    tensors, header = tensors_and_header(saved)
    half = write(tmp_path / "half.safetensors", {name: t.half() for name, t in tensors.items()}, header)
    assert half.stat().st_size < 0.6 * saved.stat().st_size
    loaded = load_checkpoint(half)
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}
    assert (restored(loaded) - restored(network)).abs().max() < 5e-3


def test_a_network_on_its_way_through_training_can_be_saved(network, tmp_path):
    last = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
    save_checkpoint(last, tmp_path / "a.safetensors")
    assert last.training
    assert torch.equal(restored(load_checkpoint(tmp_path / "a.safetensors")), restored(network))


def test_only_networks_with_a_name_are_saved(tmp_path):
    with pytest.raises(ModelError, match="Linear: only networks made by"):
        save_checkpoint(nn.Linear(2, 2), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_place_that_cannot_be_written_is_named(network, tmp_path):
    with pytest.raises(ModelError, match=r"nowhere/a\.safetensors: the checkpoint cannot be written"):
        save_checkpoint(network, tmp_path / "nowhere" / "a.safetensors")


def cut(path, _):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path, _):
    path.write_bytes(b"")


def text(path, _):
    path.write_text("no checkpoint at all")


def giant_header(path, _):
    path.write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(100))


def torch_file(path, network):
    torch.save(network.state_dict(), path)


def no_header(path, network):
    save_file(network.state_dict(), path)


def header_no_json(path, network):
    write(path, network.state_dict(), "{not json")


def header_a_list(path, network):
    write(path, network.state_dict(), [1, 2, 3])


def header_without_arguments(path, network):
    write(path, network.state_dict(), {"model": "uformer-t", "low_rank": None})


def changed_header(**changes):
    def write_changed(path, network):
        write(path, network.state_dict(), {"model": "uformer-t", "low_rank": None, "arguments": {}} | changes)

    return write_changed


def other_weights(path, _):
    save_checkpoint(create("uformer-t", **SMALL), path)
    tensors, header = tensors_and_header(path)
    write(path, tensors, header | {"low_rank": True})


def missing_weight(path, _):
    tensors, header = tensors_and_header(path)
    del tensors["enter.weight"]
    write(path, tensors, header)


BROKEN = {
    "cut off": (cut, "not a safetensors checkpoint"),
    "zero bytes": (empty, "not a safetensors checkpoint"),
    "text": (text, "not a safetensors checkpoint"),
    "giant header": (giant_header, "not a safetensors checkpoint"),
    "torch.save": (torch_file, "not a safetensors checkpoint"),
    "no header": (no_header, "no header of unsmear"),
    "header no JSON": (header_no_json, "no header of unsmear"),
    "header a list": (header_a_list, "no header of unsmear"),
    "header without arguments": (header_without_arguments, "no header of unsmear"),
    "arguments a list": (changed_header(arguments=[1]), "no header of unsmear"),
    "model a number": (changed_header(model=7), "no network is called 7|no header of unsmear"),
    "unknown model": (changed_header(model="uformer-x"), "no network is called 'uformer-x'"),
    "unknown argument": (changed_header(arguments={"colour": 1}), "colour"),
    "impossible argument": (changed_header(arguments={"width": -4}), "uformer-t: .*negative"),
    "depths too few": (changed_header(arguments={"depths": [1, 1]}), "expected 9 each"),
    "heads that do not divide": (changed_header(arguments={"heads": [3] * 9}), "expected 9 each"),
    "unknown argument of the module": (changed_header(low_rank={"colour": 1}), "colour"),
    "weights of another network": (other_weights, "weights are not those of uformer-t"),
    "a weight missing": (missing_weight, "weights are not those of uformer-t.*enter.weight"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_in_one_sentence_that_names_them(kind, network, saved):
    spoil, expected = BROKEN[kind]
    spoil(saved, network)
    with pytest.raises(ModelError, match=expected) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)
    assert len(str(caught.value)) < len(str(saved)) + 250
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_answered_with_the_names_in_the_package(tmp_path):
    for source in (tmp_path / "missing.safetensors", tmp_path, "no-such-network"):
        with pytest.raises(
            ModelError, match="neither a checkpoint file nor a network with weights"
        ) as caught:
            load_checkpoint(source)
        assert all(name in str(caught.value) for name in shipped_checkpoints())


class Malicious:
    ran = False

    def __reduce__(self):
        return (setattr, (Malicious, "ran", True))


def test_nothing_is_ever_unpickled(tmp_path):
    for name, dump in (("a.safetensors", pickle.dumps), ("a.pth", pickle.dumps), ("a.pt", pickle.dumps)):
        path = tmp_path / name
        path.write_bytes(dump({"state_dict": Malicious()}))
        with pytest.raises(ModelError):
            load_checkpoint(path)
    torch.save({"state_dict": Malicious()}, tmp_path / "b.pth")
    with pytest.raises(ModelError):
        load_checkpoint(tmp_path / "b.pth")
    assert not Malicious.ran


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_weights_in_the_package_load_by_name(name):
    loaded = load_checkpoint(name)
    assert loaded.header["model"]
    assert restored(loaded).isfinite().all()
