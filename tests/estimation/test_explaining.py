"""The picture that explains: what is drawn is what was found, at the place and scale where it was."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unsmear.basis.kernels import linear_motion
from unsmear.blurring import blur
from unsmear.cli import app
from unsmear.errors import KernelError, UnreadablePhoto, UnwritablePhoto
from unsmear.estimation import explaining
from unsmear.estimation.explaining import draw_explanation, explain_file
from unsmear.estimation.photograph import PhotographFit, Region
from unsmear.photo import Photo, read_photo, write_photo


def fit_of(angle, picture, verdict="motion", confidence=1.0):
    k = torch.from_numpy(np.ascontiguousarray(linear_motion(15.0, angle, 17)))
    regions = tuple(Region(0, left, 128, k, 1.0, confidence) for left in (0, 64, 128))
    latent = picture if verdict == "motion" else None
    return PhotographFit(verdict, k[None], None, regions, latent, 30.0, f"The sentence of {verdict} & so on.")


def glow(sheet):
    """Where the picture shines as kernels do, (H,W)."""
    red, _, blue = (sheet[..., channel].astype(int) for channel in range(3))
    return red - blue > 60


def test_kernels_are_drawn_along_their_direction_at_the_centres_of_the_regions():
    picture = torch.full((3, 128, 256), 0.5)
    for angle, across in ((0.0, True), (90.0, False)):
        sheet = draw_explanation(picture, fit_of(angle, picture))
        assert sheet.dtype == np.uint8 and sheet.shape[1:] == (1280, 3)
        zoom = 820 / 256
        top = int((np.abs(sheet[:, 845, 0].astype(int) - 41) < 4).argmax())  # the grey photo, dimmed to 0.16
        shining = glow(sheet)[top : top + round(128 * zoom), 28 : 28 + 820]
        for left in (0, 64, 128):
            x, y = round((left + 64) * zoom), round(64 * zoom)
            cell = shining[y - 80 : y + 80, x - 90 : x + 90]
            rows, columns = np.nonzero(cell)
            assert abs(rows.mean() - 80) < 6 and abs(columns.mean() - 90) < 6
            assert (np.ptp(columns) > 4 * np.ptp(rows)) == across
            assert (np.ptp(rows) > 4 * np.ptp(columns)) == (not across)


def test_what_is_not_to_be_believed_does_not_shine():
    picture = torch.full((3, 128, 256), 0.5)
    bright = glow(draw_explanation(picture, fit_of(0.0, picture)))[110:480, :840].sum()
    faint = glow(draw_explanation(picture, fit_of(0.0, picture, confidence=0.0)))[110:480, :840].sum()
    assert faint < 0.2 * bright
    none = draw_explanation(picture, fit_of(0.0, picture, "none"), name="a & <b>.jpg", scale=0.5)
    assert glow(none).sum() == 0


def test_masks_and_residual_are_in_the_column(photograph):
    one = fit_of(0.0, photograph)
    kernels = torch.cat([one.kernels, one.kernels.transpose(1, 2)])
    masks = torch.zeros(2, 200, 240)
    masks[0, :, :120], masks[1, :, 120:] = 1, 1
    exact = blur(photograph, kernels, masks)
    both = PhotographFit("motion", kernels, masks, one.regions, photograph, 99.0, "Two kernels.")
    quiet, loud = draw_explanation(exact, both), draw_explanation(photograph, both)
    residual = (slice(-240, -60), slice(880, 1240))
    assert quiet[residual].astype(int).sum() < 0.7 * loud[residual].astype(int).sum()


def test_file_with_its_explanation(tmp_path, photograph, monkeypatch):
    photo = Photo(pixels=np.zeros((200, 240, 3), np.uint8))
    photo.put(photograph)
    write_photo(photo, tmp_path / "photo.jpg")
    monkeypatch.setattr(explaining, "estimate_photograph", lambda image: fit_of(0.0, image))
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "photo.jpg"), "--pixels", "12000"])
    assert result.exit_code == 0, result.output
    assert "The sentence of motion & so on." in result.output
    assert read_photo(tmp_path / "photo-explained.png").width == 1280
    with pytest.raises(UnwritablePhoto, match="exists already"):
        explain_file(tmp_path / "photo.jpg")
    target, explanation = explain_file(tmp_path / "photo.jpg", tmp_path / "other.jpg")
    assert target.exists() and explanation.scale == 1.0 and explanation.fit.motion


def test_it_is_estimated_by_one_thread_as_by_unsmear_kernels(tmp_path, photograph, monkeypatch):
    photo = Photo(pixels=np.zeros((200, 240, 3), np.uint8))
    photo.put(photograph)
    write_photo(photo, tmp_path / "photo.jpg")
    seen, before = [], torch.get_num_threads()

    def estimate(image):
        seen.append(torch.get_num_threads())
        return fit_of(0.0, image)

    monkeypatch.setattr(explaining, "estimate_photograph", estimate)
    torch.set_num_threads(3)
    try:
        explain_file(tmp_path / "photo.jpg")
        assert seen == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_explained_is_named(tmp_path):
    with pytest.raises(UnreadablePhoto, match=r"missing\.jpg"):
        explain_file(tmp_path / "missing.jpg")
    write_photo(Photo(pixels=np.zeros((20, 20, 3), np.uint8)), tmp_path / "small.png")
    with pytest.raises(KernelError, match=r"small\.png.*64×64"):
        explain_file(tmp_path / "small.png")
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]
