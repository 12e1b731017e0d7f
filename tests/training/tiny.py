"""The command line with one network more: small enough to train in a test, with chance and buffers in it."""

from torch import Tensor, nn

from unsmear.models import NETWORKS, Network


class Tiny(nn.Module):
    size_multiple = 8
    minimum_size = 8
    global_context = False
    LOW_RANK_POINT = "middle"
    low_rank_channels = 8

    def __init__(self, *, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.middle: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.leave(self.dropout(nn.functional.gelu(self.middle(self.norm(self.enter(image))))))


NETWORKS["tiny"] = Network(Tiny, {}, low_rank=True)  # type: ignore[index]

if __name__ == "__main__":
    from unsmear.cli import app

    app()
