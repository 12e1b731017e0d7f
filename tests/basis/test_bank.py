import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unsmear.basis.bank import KernelBank, simulate_bank
from unsmear.basis.kernels import check_kernels, defocus, linear_motion, mass_centre
from unsmear.errors import KernelError


@pytest.fixture(scope="module")
def bank():
    return simulate_bank(40, seed=3, size=33)


def test_simulated_bank_holds_centred_kernels(bank):
    assert bank.kernels.shape == (40, 33, 33) and len(bank) == 40
    check_kernels(bank.kernels)
    assert np.abs(mass_centre(bank.kernels)).max() < 1e-4
    assert {item["kind"] for item in bank.info} == {"shake", "linear", "defocus"}


def test_kernel_depends_on_seed_and_index_alone(bank):
    shorter = simulate_bank(5, seed=3, size=33)
    np.testing.assert_array_equal(shorter.kernels, bank.kernels[:5])
    assert shorter.info == bank.info[:5]
    assert not np.array_equal(simulate_bank(5, seed=4, size=33).kernels, shorter.kernels)


def test_info_tells_how_to_make_the_kernel_again(bank):
    for kernel, info in zip(bank.kernels, bank.info, strict=True):
        if info["kind"] == "linear":
            np.testing.assert_allclose(kernel, linear_motion(info["length"], info["angle"], 33), atol=1e-3)
        elif info["kind"] == "defocus":
            np.testing.assert_allclose(kernel, defocus(info["radius"], 33), atol=0.02)


def test_save_then_load_is_equal_and_writes_equal_bytes(bank, tmp_path):
    bank.save(tmp_path / "one.safetensors")
    loaded = KernelBank.load(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(loaded.kernels, bank.kernels)
    assert loaded.info == bank.info
    loaded.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_picture_shows_each_kernel_at_its_place(bank):
    sheet = bank.picture(columns=8)
    assert sheet.dtype == np.uint8 and sheet.shape == (5 * 34 + 1, 8 * 34 + 1, 1)
    tile = sheet[1 + 34 : 34 + 34, 1 + 2 * 34 : 34 + 2 * 34, 0]  # row 1, column 2: kernel 10
    assert tile.shape == (33, 33)
    kernel = bank.kernels[10]
    np.testing.assert_array_equal(tile, np.rint(255 * np.sqrt(kernel / kernel.max())))


def _file(path, tensors, metadata=None):
    save_file(tensors, str(path), metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.ones(1)}, "kernels"),
        ({"kernels": torch.ones(2, 4, 4) / 16}, "odd"),
        ({"kernels": torch.ones(2, 3, 5) / 15}, "square"),
        ({"kernels": torch.ones(3, 3) / 9}, r"\(M, K, K\)"),
        ({"kernels": torch.ones(2, 3, 3)}, "sum"),
        ({"kernels": torch.zeros(0, 3, 3)}, "M ≥ 1"),
    ],
)
def test_a_file_that_is_no_bank_is_refused(tensors, message, tmp_path):
    path = _file(tmp_path / "bank.safetensors", tensors)
    with pytest.raises(KernelError, match=message) as error:
        KernelBank.load(path)
    assert "bank.safetensors" in str(error.value)


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no bank at all, but long enough for a header")
    for name in ("missing", "empty", "text", "."):
        with pytest.raises(KernelError):
            KernelBank.load(tmp_path / name)
    header = {"unsmear kernel bank": '{"info": [{}, {}, {}]}'}
    with pytest.raises(KernelError, match="3 infos"):
        KernelBank.load(_file(tmp_path / "b", {"kernels": torch.ones(1, 1, 1)}, header))
    with pytest.raises(KernelError, match="list"):
        header = {"unsmear kernel bank": '{"info": 3}'}
        KernelBank.load(_file(tmp_path / "c", {"kernels": torch.ones(1, 1, 1)}, header))


def test_a_plain_file_of_kernels_is_a_bank(tmp_path):
    path = _file(tmp_path / "plain.safetensors", {"kernels": torch.ones(2, 3, 3) / 9})
    assert KernelBank.load(path).info == ({}, {})


@pytest.mark.parametrize(
    "arguments", [{"count": 0}, {"size": 32}, {"kinds": ("sneeze",)}, {"lengths": (5, 2)}]
)
def test_impossible_banks_are_refused(arguments):
    with pytest.raises(KernelError):
        simulate_bank(**({"count": 2} | arguments))
