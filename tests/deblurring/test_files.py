"""Files and folders: mirrored, resumed, refused, and one bad file among good ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from unsmear.cli import app
from unsmear.deblurring import deblur_files
from unsmear.deblurring.files import plan_jobs
from unsmear.errors import ModelError, PhotoError, UnwritablePhoto
from unsmear.models import create
from unsmear.models.checkpoints import save_checkpoint
from unsmear.photo import Photo, read_photo, write_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)


class Invert(nn.Module):
    size_multiple, minimum_size, global_context = 16, 16, False

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return 1 - image


def make(*paths: Path, pixels: np.ndarray = PIXELS) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_photo(Photo(pixels=pixels), path)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_and_folders_are_mirrored(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/sub/deep/b.tiff", tmp_path / "c.webp")
    (tmp_path / "in/notes.txt").write_text("no photo")
    summary = deblur_files([tmp_path / "in", str(tmp_path / "c.webp")], tmp_path / "out", model=Invert())
    assert files(tmp_path / "out") == ["a.png", "c.webp", "sub/deep/b.tiff"]
    assert len(summary.restored) == 3 and not summary.failures and not summary.skipped
    for name in ("a.png", "sub/deep/b.tiff"):
        assert np.array_equal(read_photo(tmp_path / "out" / name).pixels, 255 - PIXELS)
    assert summary.restored[0].gradient_energy_ratio == pytest.approx(1)
    assert summary.restored[0].megapixels == pytest.approx(24 * 30 / 1e6)


def test_sixteen_bit_grey_and_alpha_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (9, 11, 2), np.uint16)
    make(tmp_path / "a.png", pixels=pixels)
    deblur_files([tmp_path / "a.png"], tmp_path / "b.png", model=Invert())
    result = read_photo(tmp_path / "b.png").pixels
    assert np.array_equal(result[..., 0], 65535 - pixels[..., 0])
    assert np.array_equal(result[..., 1], pixels[..., 1])


def test_a_second_run_skips_what_is_finished(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/b.png")
    network = Invert()
    deblur_files([tmp_path / "in"], tmp_path / "out", model=network)
    (tmp_path / "out/b.png").unlink()
    first = (tmp_path / "out/a.png").stat().st_mtime_ns
    summary = deblur_files([tmp_path / "in"], tmp_path / "out", model=network)
    assert [job.source.name for job in summary.skipped] == ["a.png"]
    assert [done.job.source.name for done in summary.restored] == ["b.png"]
    assert network.calls == 3 and (tmp_path / "out/a.png").stat().st_mtime_ns == first
    summary = deblur_files([tmp_path / "in"], tmp_path / "out", model=network, overwrite=True)
    assert len(summary.restored) == 2 and network.calls == 5


def test_nothing_to_do_loads_no_network_and_still_minds_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.png", tmp_path / "out/a.png")
    for overwrite in (False, True):
        with pytest.raises(ModelError, match="'no-such': neither a checkpoint file nor a network"):
            deblur_files([tmp_path / "a.png"], tmp_path / "out", model="no-such", overwrite=overwrite)
    monkeypatch.setattr("unsmear.deblurring.files.make_restorer", lambda *_, **__: pytest.fail("loaded"))
    assert len(deblur_files([tmp_path / "a.png"], tmp_path / "out").skipped) == 1


def test_a_kill_leaves_no_half_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Killed(Invert):
        def forward(self, image: Tensor) -> Tensor:
            if self.calls:
                raise KeyboardInterrupt
            return super().forward(image)

    make(tmp_path / "in/a.png", tmp_path / "in/b.png")
    with pytest.raises(KeyboardInterrupt):
        deblur_files([tmp_path / "in"], tmp_path / "out", model=Killed(), progress=True)
    assert files(tmp_path / "out") == ["a.png"]
    said = capsys.readouterr().out
    assert f"stopped at {tmp_path / 'in/b.png'}; the same command goes on. So far: 1 restored" in said


class Same(Invert):
    def forward(self, image: Tensor) -> Tensor:
        return image


def test_what_is_left_as_it_is_is_copied_byte_for_byte(tmp_path: Path) -> None:
    make(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"what another encoder would not write")
    summary = deblur_files([tmp_path / "a.jpg"], tmp_path / "out", model=Same(), quality=50)
    assert (tmp_path / "out/a.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    assert files(tmp_path / "out") == ["a.jpg"]
    assert summary.restored[0].untouched and str(summary) == "0 restored, 1 left as it is"
    deblur_files([tmp_path / "a.jpg"], tmp_path / "out", model=Same(), format="png")  # another format
    assert np.array_equal(read_photo(tmp_path / "out/a.png").pixels, read_photo(tmp_path / "a.jpg").pixels)
    before = (tmp_path / "out/a.jpg").read_bytes()
    make(tmp_path / "b.jpg")
    assert deblur_files([tmp_path / "b.jpg"], tmp_path / "out/a.jpg", model=Same()).skipped
    assert (tmp_path / "out/a.jpg").read_bytes() == before
    summary = deblur_files([tmp_path / "b.jpg"], tmp_path / "out/a.jpg", model=Same(), overwrite=True)
    assert (tmp_path / "out/a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    summary = deblur_files([tmp_path / "b.jpg"], tmp_path / "out", model=Invert())
    assert not summary.restored[0].untouched and str(summary) == "1 restored"


def test_a_bad_file_is_named_and_the_rest_done(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/z.png")
    (tmp_path / "in/cut.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:200])
    (tmp_path / "in/empty.jpg").touch()
    summary = deblur_files([tmp_path / "in", tmp_path / "missing.jpg"], tmp_path / "out", model=Invert())
    assert files(tmp_path / "out") == ["a.png", "z.png"]
    assert [path.name for path, _ in summary.failures] == ["cut.png", "empty.jpg", "missing.jpg"]
    assert all(str(path) in message for path, message in summary.failures)
    assert str(summary).startswith("2 restored, 3 failed:\n") and "cut.png" in str(summary)


def test_a_network_that_fails_on_one_photo(tmp_path: Path) -> None:
    class Moody(Invert):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * (torch.nan if self.calls == 1 else 1)

    make(tmp_path / "in/a.png", tmp_path / "in/b.png")
    summary = deblur_files([tmp_path / "in"], tmp_path / "out", model=Moody())
    assert [path.name for path, _ in summary.failures] == ["a.png"] and "NaN" in summary.failures[0][1]
    assert files(tmp_path / "out") == ["b.png"]


def test_inputs_are_never_written_over(tmp_path: Path) -> None:
    make(tmp_path / "a.png", tmp_path / "b/a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    for inputs, output in (
        (["a.png"], "."),
        (["a.png"], "a.png"),
        (["a.png"], "link"),
        (["."], "."),
        (["a.png", "b/a.png"], "b"),
    ):
        with pytest.raises(UnwritablePhoto, match="is an input"):
            deblur_files(
                [tmp_path / name for name in inputs], tmp_path / output, model=Invert(), overwrite=True
            )
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, PIXELS)


def test_two_inputs_for_one_output(tmp_path: Path) -> None:
    make(tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "z/a.png", tmp_path / "z/a.tiff")
    with pytest.raises(UnwritablePhoto, match=r"x/a\.png and .*y/a\.png would both be written"):
        plan_jobs([tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    assert len(plan_jobs([tmp_path / "z"], tmp_path / "out")) == 2
    with pytest.raises(UnwritablePhoto, match="both"):
        plan_jobs([tmp_path / "z"], tmp_path / "out", format="jpg")


def test_two_formats_of_one_name_side_by_side(tmp_path: Path) -> None:
    make(tmp_path / "z/a.png", tmp_path / "z/a.tiff", tmp_path / "z/b.png", tmp_path / "z/sub/a.png")
    summary = deblur_files([tmp_path / "z"], tmp_path / "out", model=Invert(), side_by_side=True)
    assert len(summary.restored) == 4
    assert [name for name in files(tmp_path / "out") if "before" in name] == [
        "a.png-before-after.jpg",
        "a.tiff-before-after.jpg",
        "b-before-after.jpg",
        "sub/a-before-after.jpg",
    ]
    make(tmp_path / "y/a.png", tmp_path / "y/a-before-after.jpg")
    with pytest.raises(UnwritablePhoto, match="both"):
        deblur_files([tmp_path / "y"], tmp_path / "out2", model=Invert(), side_by_side=True)


def test_an_input_given_twice_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/b.png")
    monkeypatch.chdir(tmp_path)
    jobs = plan_jobs(["in/a.png", "in", tmp_path / "in", "./in/a.png"], "out")
    assert sorted(job.source.name for job in jobs) == ["a.png", "b.png"]
    assert len(plan_jobs(["in/a.png", tmp_path / "in/a.png"], "c.png")) == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    network = Invert()
    for output in (tmp_path / "a.png/sub", tmp_path / "a.png/new.jpg"):
        with pytest.raises(
            UnwritablePhoto, match=r"into the folder .*a\.png.*: (not a directory|it is a file); name another"
        ):
            deblur_files([tmp_path / "a.png"], output, model=network)
    assert network.calls == 0


def test_a_photo_that_the_format_cannot_hold_is_not_restored(tmp_path: Path) -> None:
    make(tmp_path / "a.png", pixels=PIXELS[..., :2])
    network = Invert()
    summary = deblur_files([tmp_path / "a.png"], tmp_path / "a.jpg", model=network)
    assert "JPEG holds no transparency" in summary.failures[0][1]
    assert network.calls == 0 and not (tmp_path / "a.jpg").exists()


def test_a_suffix_of_no_format_is_no_folder_for_a_single_photo(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/b.png")
    with pytest.raises(UnwritablePhoto, match=r"x\.xyz has the suffix of no format .*avif.*make it first"):
        plan_jobs([tmp_path / "in/a.png"], tmp_path / "x.xyz")
    assert len(plan_jobs([tmp_path / "in"], tmp_path / "x.xyz")) == 2
    (tmp_path / "x.xyz").mkdir()
    assert len(plan_jobs([tmp_path / "in/a.png"], tmp_path / "x.xyz")) == 1


def test_what_is_there_already_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a.png", tmp_path / "b.png")
    summary = deblur_files([tmp_path / "a.png"], tmp_path / "b.png", model=Invert())
    assert str(summary) == f"0 restored, 1 there already: {tmp_path / 'b.png'} (--overwrite makes it again)"


def test_a_photo_without_edges_has_no_ratio(tmp_path: Path) -> None:
    make(tmp_path / "a.png", pixels=np.full((1, 1, 3), 7, np.uint8))
    summary = deblur_files([tmp_path / "a.png"], tmp_path / "b.png", model=Invert())
    assert "gradient energy × –, " in str(summary.restored[0])


def test_results_inside_an_input_folder_are_no_inputs(tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    for _ in range(2):
        deblur_files([tmp_path], tmp_path / "out", model=Invert())
    assert files(tmp_path) == ["a.png", "out/a.png"]


def test_output_as_a_file(tmp_path: Path) -> None:
    make(tmp_path / "a.png", tmp_path / "in/b.png")
    deblur_files([tmp_path / "a.png"], tmp_path / "new/name.tiff", model=Invert())
    assert read_photo(tmp_path / "new/name.tiff").format == "tiff"
    (tmp_path / "plain").touch()
    for inputs, output in ((["a.png", "in/b.png"], "c.png"), (["in"], "c.png"), (["in"], "plain")):
        with pytest.raises(UnwritablePhoto, match="name a folder"):
            plan_jobs([tmp_path / name for name in inputs], tmp_path / output)
    with pytest.raises(UnwritablePhoto, match="contradicts"):
        plan_jobs([tmp_path / "a.png"], tmp_path / "c.png", format="jpg")


def test_format(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/b.tiff")
    deblur_files([tmp_path / "in"], tmp_path / "out", model=Invert(), format="webp")
    assert files(tmp_path / "out") == ["a.webp", "b.webp"]
    with pytest.raises(PhotoError, match="'gif' is unknown"):
        plan_jobs([tmp_path / "in"], tmp_path / "out", format="gif")


def test_no_photos(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photos in"):
        plan_jobs([tmp_path], tmp_path / "out")


def test_side_by_side_and_afterwards_too(tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    make(tmp_path / "b.png", pixels=PIXELS[..., :2])
    inputs, beside = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out/a-before-after.jpg"
    deblur_files(inputs, tmp_path / "out", model=Invert(), side_by_side=True)
    assert files(tmp_path / "out") == ["a-before-after.jpg", "a.png", "b-before-after.jpg", "b.png"]
    shown = read_photo(beside).pixels.astype(int)
    assert shown.shape == (24, 2 * 30 + 8, 3)
    assert np.abs(shown[:, :30] - PIXELS).mean() < 8 and np.abs(shown[:, 38:] - (255 - PIXELS)).mean() < 8
    beside.unlink()
    deblur_files(inputs, tmp_path / "out", model=Invert(), side_by_side=True)
    assert beside.exists()


def test_side_by_side_keeps_a_file_of_its_name_unless_asked(tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    beside, options = tmp_path / "out/a-before-after.jpg", {"model": Invert(), "side_by_side": True}
    beside.parent.mkdir()
    beside.write_bytes(b"mine")
    done = deblur_files([tmp_path / "a.png"], tmp_path / "out", **options)
    assert beside.read_bytes() == b"mine" and (tmp_path / "out/a.png").exists()
    assert f"{beside} was there already and is kept" in str(done.restored[0])
    done = deblur_files([tmp_path / "a.png"], tmp_path / "out", overwrite=True, **options)
    assert read_photo(beside).pixels.shape == (24, 2 * 30 + 8, 3) and "kept" not in str(done.restored[0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create("sglrn-t", width=8)
        nn.init.normal_(network.middle.fuse.weight, std=0.1)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(network, path, {})
    return path


def test_command_line(tmp_path: Path, checkpoint: Path) -> None:
    make(tmp_path / "in/a.png")
    arguments = ["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(checkpoint)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "gradient energy × " in result.output and "1 restored" in result.output
    assert not np.array_equal(read_photo(tmp_path / "out/a.png").pixels, PIXELS)
    (tmp_path / "in/bad.png").touch()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "1 there already" in result.output and "bad.png" in result.output
    result = CliRunner().invoke(app, ["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "in")])
    assert result.exit_code == 1 and "is an input" in result.output
