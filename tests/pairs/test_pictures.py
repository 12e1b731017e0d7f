import numpy as np
import pytest
from typer.testing import CliRunner

from unsmear.basis.bank import KernelBank
from unsmear.cli import app
from unsmear.errors import PairsError
from unsmear.pairs import PairSampler, PairSettings, WrittenPairs, pairs_picture, read_settings
from unsmear.photo import read_photo


def test_picture_shows_the_pairs_side_by_side(photos):
    pairs = [PairSampler(photos, size=64)[index] for index in range(3)]
    sheet = pairs_picture(pairs, across=2)
    assert sheet.shape == (2 * 64, 2 * 4 * 64, 3) and sheet.dtype == np.uint8
    levels = np.rint(255 * pairs[1].blurred.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(sheet[:64, 5 * 64 : 6 * 64], levels)
    assert not sheet[64:, 4 * 64 :].any()


def test_no_pairs_make_no_picture():
    with pytest.raises(PairsError):
        pairs_picture([])


def test_settings_are_read_from_toml_and_wrong_ones_named(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("longest = 30\nnoise = [0.0, 0.02]\n")
    assert read_settings(path) == PairSettings(longest=30, noise=(0.0, 0.02))
    for text, message in (
        ("lenght = 3", "lenght"),
        ("jpeg_share = 2", "jpeg_share"),
        ("longest =", "cannot"),
    ):
        path.write_text(text)
        with pytest.raises(PairsError, match=message):
            read_settings(path)
    with pytest.raises(PairsError, match="missing"):
        read_settings(tmp_path / "missing.toml")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_commands_make_a_bank_and_pairs_from_it(photos, tmp_path):
    bank = tmp_path / "bank.safetensors"
    result = run("kernels", "simulate", bank, "--count", 7, "--size", 21, "--picture", tmp_path / "bank.png")
    assert result.exit_code == 0, result.output
    assert len(KernelBank.load(bank)) == 7
    assert run("kernels", "show", bank, tmp_path / "shown.png").exit_code == 0
    np.testing.assert_array_equal(
        read_photo(tmp_path / "bank.png").pixels, read_photo(tmp_path / "shown.png").pixels
    )
    asked = ("pairs", photos, "-o", tmp_path / "set", "--count", 3, "--size", 32, "--workers", 1)
    result = run(*asked, "--bank", bank, "--picture", tmp_path / "pairs.png")
    assert result.exit_code == 0, result.output
    assert "3 pairs written" in result.output
    assert len(WrittenPairs(tmp_path / "set")) == 3
    assert read_photo(tmp_path / "pairs.png").pixels.shape == (64, 256, 3)


def test_the_command_says_what_is_wrong(tmp_path):
    result = run("pairs", tmp_path, "-o", tmp_path / "set")
    assert result.exit_code == 1 and "no photograph" in result.output
