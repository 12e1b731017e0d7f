import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small images: a second thread costs more than it brings, above all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
