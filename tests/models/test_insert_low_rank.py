"""The low-rank module in any network: where it goes, that it changes nothing at first, what is refused."""

import re
from pathlib import Path

import pytest
import torch
from oracles import randomise, spandrel_nafnet
from torch import nn

import unsmear
from unsmear.errors import ModelError
from unsmear.models import create
from unsmear.models.checkpoints import load_checkpoint, save_checkpoint
from unsmear.models.low_rank import LowRankModule, PlainBlock, insert_low_rank


class UNet(nn.Module):
    """Somebody else's network, which declares nothing."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 2, stride=2), nn.BatchNorm2d(32), nn.GELU())
        self.blocks = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.unused = nn.GELU()
        self.leave = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x):
        skip = self.enter(x)
        y = self.down(skip)
        for block in self.blocks:
            y = y + block(y)
        y = self.up(y) + skip * self.pool(skip)[..., None, None]
        return x + self.leave(y)


@pytest.fixture
def foreign():
    torch.manual_seed(0)
    return UNet().eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("point", "channels"),
    [
        ("enter", 16),
        ("enter.0", 16),
        ("down", 32),
        ("down.1", 32),
        ("blocks.1", 32),
        ("up", 16),
        ("leave", 3),
    ],
)
@pytest.mark.parametrize("control", [False, True])
def test_a_foreign_network_takes_it_anywhere_and_goes_on_as_it_was(foreign, x, point, channels, control):
    before = foreign(x)
    old = foreign.get_submodule(point)
    module = insert_low_rank(foreign, point, control=control)
    assert isinstance(module, PlainBlock if control else LowRankModule)
    assert module.fuse.out_channels == channels
    assert list(foreign.get_submodule(point)) == [old, module]
    assert torch.equal(foreign(x), before)
    assert not module.training
    (foreign(x) ** 2).mean().backward()
    assert module.fuse.weight.grad.any()


def test_behind_a_trained_module_the_output_is_that_of_the_projection(foreign, x):
    module = insert_low_rank(foreign, "down")
    nn.init.normal_(module.fuse.weight)
    seen = []
    foreign.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    foreign(x)
    expected = module(foreign.down[0](foreign.enter(x)))
    torch.testing.assert_close(seen[0], expected)


def test_finding_the_channels_leaves_no_trace(foreign):
    foreign.train()
    foreign.down.eval()
    before = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    insert_low_rank(foreign, "down")  # a Sequential: found by a run
    modes = {name: module.training for name, module in foreign.named_modules() if "down" not in name}
    assert all(modes.values()) and not foreign.down[0].training
    after = {name.replace("down.0.", "down."): tensor for name, tensor in foreign.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not foreign.down[0]._forward_hooks


def test_it_takes_the_type_of_the_network(foreign, x):
    module = insert_low_rank(foreign.double(), "up")
    assert module.score.weight.dtype == torch.float64
    assert foreign(x.double()).dtype == torch.float64


def test_what_cannot_be_done_is_said(foreign):
    with pytest.raises(ModelError, match=r"UNet has no submodule 'block\.1'; did you mean blocks\.1"):
        insert_low_rank(foreign, "block.1")
    with pytest.raises(ModelError, match="UNet declares no LOW_RANK_POINT; name a submodule"):
        insert_low_rank(foreign)
    with pytest.raises(ModelError, match=r"'pool' gives \(1, 16\) for a picture .* expected feature maps"):
        insert_low_rank(foreign, "pool")
    with pytest.raises(ModelError, match="'unused' gives no tensor"):
        insert_low_rank(foreign, "unused")
    with pytest.raises(ModelError, match=r"'decoder.0' gives \(1, 64, 128, 16\) .* expected feature maps"):
        insert_low_rank(create("nafnet-16", encoder=(1,), decoder=(1,)), "decoder.0")  # channels are last
    with pytest.raises(ModelError, match=r"channels at '0' cannot be found .* name them: channels="):
        insert_low_rank(nn.Sequential(nn.GELU(), nn.Linear(3, 3)), "0", channels=None)
    model = create("nafnet-16", low_rank=True, encoder=(1,), decoder=(1,))
    with pytest.raises(ModelError, match="there is a LowRankModule at 'middle' already"):
        insert_low_rank(model)


def test_it_is_public():
    assert unsmear.insert_low_rank is insert_low_rank


def test_the_example_in_the_documentation_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "MODELS.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/MODELS.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "4 True\n"


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")  # spandrel's
def test_spandrels_nafnet_takes_it_in_its_middle_and_trains():
    theirs = randomise(spandrel_nafnet(width=16, encoder=(1, 1), decoder=(1, 1)))
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = theirs(x)
        module = insert_low_rank(theirs, "middle_blks")
        assert module.fuse.out_channels == 64
        assert torch.equal(theirs(x), before)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = ((theirs(x) - x) ** 2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        torch.autograd.backward(loss, inputs=list(module.parameters()))
        optimizer.step()
    assert losses[-1] < losses[0]


def test_a_network_of_ours_with_modules_at_several_places_is_saved_and_loaded(tmp_path, x):
    model = create("nafnet-16", low_rank={"reduction": 4}, encoder=(1, 1), decoder=(1, 1))
    insert_low_rank(model, "up.0", control=True)
    module = insert_low_rank(model, "down.1", reduction=2)
    for one in (model.middle, model.up[0][1], module):
        nn.init.normal_(one.fuse.weight, std=0.1)
    save_checkpoint(model, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(loaded(x), model.eval()(x))
    again = create("nafnet-16", low_rank=loaded.made_by["low_rank"], encoder=(1, 1), decoder=(1, 1))
    again.load_state_dict(model.state_dict())
    assert again.middle.rank == 64 // 4


@pytest.mark.parametrize("wrong", ["controls", 3])
def test_a_word_that_means_nothing_is_refused(wrong):
    with pytest.raises(ModelError, match="nafnet-16: "):
        create("nafnet-16", low_rank=wrong)
