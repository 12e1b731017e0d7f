"""Laws of every network of the table, without the low-rank module, with it, and with its control."""

import pytest
import torch
from oracles import randomise
from torch import nn

from unsmear.models import NETWORKS, create
from unsmear.models.checkpoints import load_checkpoint, save_checkpoint
from unsmear.models.costs import multiply_adds, parameters
from unsmear.models.low_rank import LowRankModule, PlainBlock
from unsmear.models.restoring import restore
from unsmear.models.uformer import Uformer

SMALL = {
    "uformer": {"width": 8, "depths": (1,) * 9, "drop_path": 0.0},
    "nafnet": {"encoder": (1, 2), "decoder": (1, 1), "local_window": None},
    "svrnn": {"guidance": 16, "recurrences": 2},
    "radn": {"encoder": (2, 2, 2), "decoder": (2, 2, 2), "up": (64, 32, 64)},
    "mscnn": {"width": 16, "blocks": 3},
    "srn": {"width": 8, "blocks": 1},
    "pss": {"width": 8},
    "deblurgan": {"width": 16, "blocks": 3},
    "guided": {"widths": (8, 16), "depths": (1, 1)},
}
"""Arguments that make a family quick to run, by the first part of its names."""

NAMES = [name for name, row in NETWORKS.items() if row.build.__module__.startswith("unsmear.")]
FAMILIES = [
    *{NETWORKS[name].build: name for name in reversed(NAMES)}.values(),
    "srn-lstm",
    "deblurgan-public",
]
"""The first name of each class, as what holds for one width holds for the others, and two of other layers."""

VARIANTS = [False, True, "control"]


def made(name, low_rank, seed=0):
    """A small network with all weights random, in evaluation mode."""
    model = create(name, low_rank=low_rank, **SMALL.get(name.split("-")[0], {}))
    return randomise(model, seed).eval()


@pytest.fixture(scope="module", params=[(n, v) for n in FAMILIES for v in VARIANTS], ids=str)
def network(request):
    return made(*request.param)


def image(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def smallest(model):
    """The smallest rectangle with unequal sides that the network takes without padding."""
    multiple = model.size_multiple
    height = -(-model.minimum_size // multiple) * multiple
    return height, height + multiple


# Laws of shape, for every name at its own size


@pytest.mark.parametrize("name", NAMES)
def test_a_network_declares_what_it_is(name):
    with torch.device("meta"):
        model = create(name, low_rank=False)
    assert model.size_multiple >= 1 and model.minimum_size >= 1
    assert isinstance(model.global_context, bool)
    assert isinstance(model.get_submodule(model.LOW_RANK_POINT), nn.Identity)
    assert model.low_rank_channels >= 32  # the control matches within 1 % from here on


@pytest.mark.parametrize("name", NAMES)
def test_the_control_has_the_parameters_of_the_module(name):
    with torch.device("meta"):
        plain, module, control = (create(name, low_rank=variant) for variant in VARIANTS)
    added = [parameters(model) - parameters(plain) for model in (module, control)]
    assert abs(added[1] / added[0] - 1) < 0.01
    assert isinstance(module.get_submodule(module.LOW_RANK_POINT), LowRankModule)
    assert isinstance(control.get_submodule(control.LOW_RANK_POINT), PlainBlock)


@pytest.mark.parametrize("name", [name for name in NAMES if NETWORKS[name].published])
def test_parameters_are_those_published_or_a_reason_is_given(name):
    row = NETWORKS[name]
    with torch.device("meta"):
        model = create(name)
    assert row.reason or abs(parameters(model) / 1e6 / row.published[0] - 1) < 0.01


# Laws of numbers, for each family and variant


@pytest.mark.parametrize(("height", "width"), [(1, 1), (30, 47)])
def test_any_size_keeps_its_size(network, height, width):
    x = image(1, height, width)
    y = restore(network, x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(x, y)


def test_a_batch_is_one_by_one(network):
    x = image(3, *smallest(network))
    with torch.inference_mode():
        whole = network(x)
        singly = torch.cat([network(x[i : i + 1]) for i in range(3)])
    assert whole.shape == x.shape
    assert (whole - x).std() > 1e-3
    torch.testing.assert_close(whole, singly, atol=2e-5, rtol=1e-4)


def test_bfloat16_autocast_is_finite_and_near(network):
    x = image(1, *smallest(network))
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x).float()
    assert rough.isfinite().all()
    assert (rough - exact).std() < 0.1 * (exact - x).std()


def test_saved_and_loaded_it_is_the_same(network, tmp_path):
    save_checkpoint(network, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    x = image(1, *smallest(network))
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))


def test_every_parameter_gets_a_gradient(network):
    network.train()
    try:
        outputs = network(image(2, *smallest(network)))
    finally:
        network.eval()
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    assert outputs[-1].shape[-2:] == smallest(network)
    sizes = [output.shape[-2] for output in outputs]
    assert sizes == sorted(set(sizes))  # coarse to fine
    sum((output.float() ** 2).mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    network.zero_grad()


@pytest.mark.parametrize("low_rank", [True, "control"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_module_starts_as_the_identity(name, low_rank):
    torch.manual_seed(0)
    plain, with_module = (
        made(name, False),
        create(name, low_rank=low_rank, **SMALL.get(name.split("-")[0], {})),
    )
    with_module.load_state_dict(plain.state_dict(), strict=False)
    x = image(1, *smallest(plain))
    with torch.inference_mode():
        assert torch.equal(plain(x), with_module.eval()(x))


def test_multiply_adds_are_those_of_a_real_run(network):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    x = image(1, *smallest(network))
    # The counter does not know PyTorch's fused attention on a CPU.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x)
    assert counter.get_total_flops() == 2 * multiply_adds(network, *smallest(network))


def test_uformer_is_counted_as_its_closed_form():
    """Layers by their weights, attention by the pairs of tokens that share a window."""

    def weights(module):
        kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds))

    def sharing(length, shift):
        return 8 * (length - 8) + shift**2 + (8 - shift) ** 2

    height, width = 128, 256
    model = create("sglrn-t", depths=(1, 2, 1, 2, 1, 1, 2, 1, 2))
    assert isinstance(model, Uformer)
    total = (weights(model.enter) + weights(model.leave)) * height * width
    stages = zip([*model.encoder, model.bottleneck, *model.decoder], [0, 1, 2, 3, 4, 3, 2, 1, 0], strict=True)
    for stage, level in stages:
        rows, columns = height >> level, width >> level
        for block in stage:
            pairs = sharing(rows, block.shift) * sharing(columns, block.shift)
            total += weights(block) * rows * columns + 2 * block.norm1.normalized_shape[0] * pairs
    for i in range(4):
        total += weights(model.down[i]) * (height >> i + 1) * (width >> i + 1)
        total += weights(model.up[i]) * (height >> 4 - i) * (width >> 4 - i)
    rank, channels = model.middle.rank, model.low_rank_channels
    pixels = (height >> 4) * (width >> 4)
    total += (weights(model.middle) + rank * rank + 2 * rank * channels) * pixels
    assert multiply_adds(model, height, width) == total
