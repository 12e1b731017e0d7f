from pathlib import Path

import pytest
import torch
from skimage import data

from unsmear.photo import Photo, write_photo


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of four photographs, one in a sub-folder, one grey."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    write_photo(Photo(pixels=data.astronaut()[:300, :400]), folder / "astronaut.jpg")
    write_photo(Photo(pixels=data.chelsea()), folder / "chelsea.png")
    write_photo(Photo(pixels=data.coffee()[:, :350]), folder / "more" / "coffee.png")
    write_photo(Photo(pixels=data.camera()[:260, :260, None]), folder / "camera.png")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small images: a second thread costs more than it brings, above all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
