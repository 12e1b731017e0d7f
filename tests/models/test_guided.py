import torch

from unsmear.models import create


@torch.no_grad()
def test_without_guides_it_is_the_guided_network_that_is_shown_none() -> None:
    torch.manual_seed(3)
    guided, plain = (create(name, widths=(8, 16), depths=(1, 1)).eval() for name in ("guided-s", "unet-s"))
    for parameter in guided.parameters():
        parameter.copy_(0.1 * torch.randn_like(parameter))
    weights = guided.state_dict()
    weights["enter.weight"] = weights["enter.weight"][:, :12]  # what sees v, four pixels of three colours
    for name in ("leave.weight", "leave.bias"):
        weights[name] = weights[name][:12]  # what makes r
    plain.load_state_dict(weights)
    picture = torch.rand(2, 3, 32, 48)
    assert (plain(picture) - picture).abs().max() > 0.1
    assert torch.allclose(plain(picture), guided(picture), atol=1e-5)
