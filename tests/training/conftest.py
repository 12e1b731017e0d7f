import pytest
import skimage.data
import tiny  # noqa: F401 - adds a network to the table
from PIL import Image

from unsmear.training import make_recipe


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(skimage.data, name)()).crop((0, 0, 300, 300)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def small(photographs, tmp_path):
    """Values of a recipe that runs in a moment."""
    return {
        "network": "tiny",
        "sharp": str(photographs),
        "run": str(tmp_path / "run"),
        "size": 32,
        "batch": 2,
        "iterations": 4,
        "learning_rate": 1e-3,
        "workers": 0,
        "threads": 1,
        "log_every": 1,
        "samples_every": 0,
        "tensorboard": False,
        "device": "cpu",
        "validation": {"count": 0, "size": 32},
    }


@pytest.fixture
def recipe(small):
    def build(**changes):
        return make_recipe(small | changes)

    return build
