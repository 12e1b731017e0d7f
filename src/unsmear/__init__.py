"""unsmear: takes motion blur out of photographs, and makes the networks that do so.

The package follows the data: photo → blurring → basis → estimation → pairs → models → training →
evaluation → deblurring.
Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unsmear.basis.bank import KernelBank
    from unsmear.blurring import blur
    from unsmear.deblurring import deblur
    from unsmear.evaluation import evaluate
    from unsmear.models import create
    from unsmear.models.low_rank import insert_low_rank
    from unsmear.pairs import Pair, PairSampler, PairSettings, WrittenPairs, write_pairs
    from unsmear.photo import Photo, read_photo, write_photo
    from unsmear.training import Recipe, read_recipe, train

_HOME = {
    "Photo": "photo",
    "read_photo": "photo",
    "write_photo": "photo",
    "blur": "blurring",
    "KernelBank": "basis.bank",
    "Pair": "pairs",
    "PairSampler": "pairs",
    "PairSettings": "pairs",
    "WrittenPairs": "pairs",
    "write_pairs": "pairs",
    "Recipe": "training",
    "read_recipe": "training",
    "train": "training",
    "evaluate": "evaluation",
    "deblur": "deblurring",
    "create": "models",
    "insert_low_rank": "models.low_rank",
}

__all__ = [
    "KernelBank",
    "Pair",
    "PairSampler",
    "PairSettings",
    "Photo",
    "Recipe",
    "WrittenPairs",
    "blur",
    "create",
    "deblur",
    "evaluate",
    "insert_low_rank",
    "read_photo",
    "read_recipe",
    "train",
    "write_pairs",
    "write_photo",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the stage it lives in on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'unsmear' has no attribute {name!r}")
    return getattr(import_module(f"unsmear.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "import_module"})
