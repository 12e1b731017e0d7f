import pytest
import torch
from torch import nn

from unsmear.errors import TrainingError
from unsmear.training.state import TrainingState, read_header


def network(layout=torch.contiguous_format):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=layout)


def step(state, decay=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(state.step)
        state.model(torch.rand(2, 3, 8, 8)).square().mean().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.update_average(decay)
    state.step += 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_loaded_state_takes_the_same_next_step(recipe, tmp_path, layout, optimizer):
    values = recipe(optimizer=optimizer, ema=0.5)
    one = TrainingState.begin(values, network(layout))
    step(one)
    step(one)
    one.best_gain, one.losses = 0.1 + 0.2, [1 / 3]
    one.save(tmp_path / "one.safetensors", {"recipe": {"a": 1}})
    other = TrainingState.begin(values, network(layout))
    other.load(tmp_path / "one.safetensors")
    assert (other.step, other.best_gain, other.losses) == (2, 0.1 + 0.2, [1 / 3])
    assert read_header(tmp_path / "one.safetensors")["recipe"] == {"a": 1}
    step(one)
    step(other)
    for module, again in ((one.model, other.model), (one.average, other.average)):
        state = again.state_dict()
        assert [
            name for name, tensor in module.state_dict().items() if not torch.equal(tensor, state[name])
        ] == []
    assert not torch.equal(one.model[0].weight, one.average[0].weight)
    assert torch.equal(one.model[1].running_mean, one.average[1].running_mean)


def test_average_is_the_average(recipe):
    state = TrainingState.begin(recipe(ema=0.9), network())
    before, start = state.average[0].weight.clone(), state.model[0].weight.detach().clone()
    assert torch.equal(before, start)
    step(state, decay=0.9)
    expected = 0.9 * before + 0.1 * state.model[0].weight
    torch.testing.assert_close(state.average[0].weight, expected)


def test_files_that_are_no_states(recipe, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(TrainingError, match="no readable training state"):
        read_header(path)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(TrainingError, match="no readable training state"):
        read_header(path)
    TrainingState.begin(recipe(), network()).save(path, {})
    with pytest.raises(TrainingError, match="belongs to another network"):
        TrainingState.begin(recipe(), nn.Linear(2, 2)).load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
