import pytest
import skimage.data
import torch


@pytest.fixture(scope="session")
def photograph() -> torch.Tensor:
    """(3, 200, 240): the face and the helmet of scikit-image's astronaut."""
    return torch.from_numpy(skimage.data.astronaut()[:200, 100:340].copy()).permute(2, 0, 1) / 255
