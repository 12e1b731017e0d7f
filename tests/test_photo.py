"""Photograph files: Pillow and tifffile read and write what unsmear writes and reads."""

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import pyvips
import skimage.data
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from unsmear.errors import UnreadablePhoto, UnwritablePhoto
from unsmear.photo import PHOTO_SUFFIXES, Photo, exif, find_photos, read_photo, write_photo

pillow_heif.register_heif_opener()
FORMATS = ["jpg", "png", "webp", "tif", "avif", "heic"]
PICTURE = skimage.data.astronaut()[100:161, 200:283]  # odd sides
RNG = np.random.default_rng(0)


def photo(channels: int = 3, bits: int = 8, height: int = 61, width: int = 83) -> Photo:
    kind = np.uint8 if bits == 8 else np.uint16
    return Photo(pixels=RNG.integers(0, 2**bits, (height, width, channels)).astype(kind))


def tags() -> Image.Exif:
    """EXIF with what is easily lost: a MakerNote, GPS, a tag nobody knows, sizes, an orientation."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0112] = "Maker", "Model X", 1
    block[0x011A], block[0x011B], block[0x0128] = 300.0, 300.0, 2
    inner = block.get_ifd(0x8769)
    inner[0x927C] = b"MAKER\0\1\2\3" * 30
    inner[0x829A], inner[0x9003], inner[0xC0DE] = 0.005, "2024:01:02 03:04:05", 7
    inner[0x9286] = b"ASCII\0\0\0hello"
    inner[0xA002], inner[0xA003] = 83, 61
    gps = block.get_ifd(0x8825)
    gps[1], gps[2], gps[29] = "N", (47.0, 30.0, 12.5), "2024:01:02"
    return block


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="1" b="c"/></x:xmpmeta>'


def save(path: Path, picture: np.ndarray = PICTURE, **options: object) -> Path:
    options = {"quality": 90} | options if path.suffix in (".jpg", ".webp", ".avif", ".heic") else options
    Image.fromarray(picture).save(path, **options)
    return path


def pillow(path: Path) -> Image.Image:
    """The file as Pillow sees it, from memory so that none stays open."""
    return Image.open(io.BytesIO(path.read_bytes()))


# Pixels and tensors


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_every_level_survives_the_tensor(bits: int, kind: type) -> None:
    levels = np.arange(2**bits).astype(kind).reshape(2 ** (bits // 2), -1, 1).repeat(3, 2)
    start = Photo(pixels=levels)
    expected = (levels.astype(np.float64) / (2**bits - 1)).astype(np.float32).transpose(2, 0, 1)
    assert np.array_equal(start.tensor().numpy(), expected)
    assert start.tensor().dtype == torch.float32
    assert np.array_equal(start.with_tensor(start.tensor()).pixels, levels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_strips_make_the_whole(channels: int, bits: int) -> None:
    start = photo(channels, bits)
    whole = start.tensor()
    assert whole.shape == (3, 61, 83)
    result = start.blank_like()
    for top in range(0, 61, 20):
        for left in range(0, 83, 30):
            part = start.tensor(rows=slice(top, top + 20), columns=slice(left, left + 30))
            assert torch.equal(part, whole[:, top : top + 20, left : left + 30])
            result.put(part, row=top, column=left)
    assert np.array_equal(result.pixels, start.pixels)
    assert result.pixels.dtype == start.pixels.dtype


def test_put_rounds_clamps_and_leaves_alpha() -> None:
    start = Photo(pixels=np.full((1, 4, 4), 9, np.uint8))
    values = torch.tensor([-1.0, 2.0, 100.4 / 255, 100.6 / 255]).expand(3, 1, 4)
    pixels = start.with_tensor(values).pixels
    assert pixels[0, :, 0].tolist() == [0, 255, 100, 101]
    assert (pixels[..., 3] == 9).all()


def test_grey_takes_the_mean() -> None:
    start = Photo(pixels=np.zeros((1, 1, 1), np.uint8))
    assert start.with_tensor(torch.tensor([0.1, 0.2, 0.6]).view(3, 1, 1)).pixels.item() == round(0.3 * 255)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_put_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(UnwritablePhoto, match="NaN"):
        photo().put(torch.full((3, 1, 1), value))


@pytest.mark.parametrize(
    ("shape", "row"), [((3, 61, 84), 0), ((1, 2, 2), 0), ((3, 2, 2), 60), ((3, 2, 2), -1)]
)
def test_put_refuses_what_does_not_fit(shape: tuple[int, ...], row: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        photo().put(torch.zeros(shape), row=row)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((2, 2, 5), np.uint8)])
def test_pixels_that_are_no_photo(pixels: np.ndarray) -> None:
    with pytest.raises(UnreadablePhoto, match="expected"):
        Photo(pixels=pixels)


# Formats, depths, channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_lossless_formats_keep_every_bit(tmp_path: Path, suffix: str, bits: int, channels: int) -> None:
    start, path = photo(channels, bits), tmp_path / f"a.{suffix}"
    write_photo(start, path)
    again = read_photo(path)
    assert again.pixels.dtype == start.pixels.dtype
    assert np.array_equal(again.pixels, start.pixels)
    if suffix == "tif":
        assert np.array_equal(tifffile.imread(path).reshape(start.pixels.shape), start.pixels)
    elif bits == 8:
        assert np.array_equal(np.asarray(pillow(path)).reshape(start.pixels.shape), start.pixels)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_quality_100_is_lossless_in_webp_and_avif(tmp_path: Path, suffix: str, channels: int) -> None:
    start, path = photo(channels), tmp_path / f"a.{suffix}"
    write_photo(start, path, quality=100)
    assert np.array_equal(read_photo(path).pixels, start.pixels)
    assert np.array_equal(np.asarray(pillow(path)), start.pixels)


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit RGB PNG by the letter of the standard: Pillow can neither write nor read one."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_colour_png_of_16_bit_is_read_as_such(tmp_path: Path) -> None:
    pixels = photo(3, 16).pixels
    (tmp_path / "a.png").write_bytes(png16(pixels))
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, pixels)


def test_tiff_of_other_writers(tmp_path: Path) -> None:
    pixels = photo(3, 16).pixels
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=">", compression="zlib")
    assert np.array_equal(read_photo(tmp_path / "a.tif").pixels, pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels.astype(np.float32), photometric="rgb")
    with pytest.raises(UnreadablePhoto, match="expected grey or RGB of 8 or 16 bit"):
        read_photo(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_decoding_agrees_with_pillow(tmp_path: Path, suffix: str) -> None:
    options = {"subsampling": "4:4:4"} if suffix == "avif" else {}  # 4:2:0 is interpolated differently
    path = save(tmp_path / f"a.{suffix}", **options)
    difference = read_photo(path).pixels.astype(int) - np.asarray(pillow(path)).astype(int)
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_writing_stays_close_and_pillow_reads_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_photo(Photo(pixels=PICTURE), path)
    for pixels in (np.asarray(pillow(path)), read_photo(path).pixels):
        error = np.mean((pixels.astype(float) - PICTURE) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 36
    assert read_photo(path).format == {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)


def test_jpeg_is_quality_95_without_subsampling(tmp_path: Path) -> None:
    write_photo(Photo(pixels=PICTURE), tmp_path / "a.jpg")
    ours = pillow(tmp_path / "a.jpg")
    theirs = pillow(save(tmp_path / "b.jpg", quality=95, subsampling=0))
    assert ours.quantization == theirs.quantization
    assert [layer[1:3] for layer in ours.layer] == [(1, 1)] * 3


def test_sixteen_bit_is_rounded_to_eight(tmp_path: Path) -> None:
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256, 1).repeat(3, 2)
    write_photo(Photo(pixels=levels), tmp_path / "a.webp", quality=100)
    expected = np.floor(levels / 257 + 0.5)
    assert np.array_equal(read_photo(tmp_path / "a.webp").pixels, expected)


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_10_and_12_bit_reaches_white(tmp_path: Path, bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16).reshape(8, 8, 1).repeat(3, 2)
    image = pyvips.Image.new_from_array(ramp << (16 - bits)).copy(interpretation="rgb16")
    image.heifsave(tmp_path / "a.avif", compression="av1", bitdepth=bits, lossless=True)
    again = read_photo(tmp_path / "a.avif")
    assert again.bit_depth == 16
    assert abs(again.tensor().numpy()[0] - ramp[..., 0] / (2**bits - 1)).max() < 1 / 2**15
    write_photo(again, tmp_path / "b.avif", quality=100)
    assert np.array_equal(read_photo(tmp_path / "b.avif").pixels >> (16 - bits), ramp)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_sixteen_bit_becomes_12_in_avif_and_heic(tmp_path: Path, suffix: str) -> None:
    levels = np.linspace(0, 65535, 61 * 83).astype(np.uint16).reshape(61, 83, 1).repeat(3, 2)
    write_photo(Photo(pixels=levels), tmp_path / f"a.{suffix}", quality=100)
    again = read_photo(tmp_path / f"a.{suffix}").pixels
    assert again.dtype == np.uint16
    error = again.astype(int) - levels
    assert abs(error).max() <= (8 if suffix == "avif" else 120)
    assert abs(error.mean()) < (1 if suffix == "avif" else 8)


def test_heic_keeps_grey(tmp_path: Path) -> None:
    write_photo(photo(1), tmp_path / "a.heic")
    assert read_photo(tmp_path / "a.heic").is_grey


def test_monochrome_avif_is_grey(tmp_path: Path) -> None:
    path = save(tmp_path / "a.avif", PICTURE[..., 0], subsampling="4:0:0")
    assert read_photo(path).pixels.shape == (61, 83, 1)
    assert read_photo(save(tmp_path / "b.avif")).pixels.shape == (61, 83, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA"])
def test_png_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.dstack([PICTURE, PICTURE[..., :1]])).convert(
        "RGB" if mode in "1LP" else "RGBA"
    )
    image = image.quantize(200) if mode in ("P", "PA") else image.convert(mode)
    image.save(tmp_path / "a.png")
    wanted = {"1": "L", "P": "RGB", "PA": "RGBA"}.get(mode, mode)
    expected = np.asarray(image.convert(wanted)).reshape(61, 83, -1)
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, expected)


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    profile = pyvips.Image.profile_load("cmyk")
    cmyk = Image.fromarray(PICTURE).convert("CMYK")
    cmyk.save(tmp_path / "a.jpg", quality=95, icc_profile=profile)
    again = read_photo(tmp_path / "a.jpg")
    assert "icc-profile-data" not in again.metadata
    expected = ImageCms.profileToProfile(
        pillow(tmp_path / "a.jpg"),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert abs(again.pixels.astype(int) - np.asarray(expected)).mean() < 1
    cmyk.save(tmp_path / "b.jpg", quality=95)
    assert read_photo(tmp_path / "b.jpg").pixels.shape == (61, 83, 3)
    deep = np.asarray(cmyk).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "c.tif", deep, photometric="separated")
    assert read_photo(tmp_path / "c.tif").bit_depth == 16


# Orientation and metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_orientation_is_applied_and_reset(tmp_path: Path, suffix: str, orientation: int) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", exif=block)
    expected = np.asarray(ImageOps.exif_transpose(pillow(path)))
    again = read_photo(path)
    assert np.abs(again.pixels.astype(int) - expected).max() <= 1
    for target in FORMATS:
        write_photo(again, tmp_path / f"b.{target}")
        image = pillow(tmp_path / f"b.{target}")
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == again.pixels.shape[1::-1]
        (tmp_path / f"b.{target}").unlink()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_once(tmp_path: Path, orientation: int) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    # Pillow turns the tag into the file's own transformation when it writes, and back when it reads.
    path = save(tmp_path / "a.avif", exif=block, subsampling="4:4:4")
    expected = np.asarray(ImageOps.exif_transpose(pillow(path)))
    assert np.abs(read_photo(path).pixels.astype(int) - expected).max() <= 1


def facts(path: Path) -> dict[str, object]:
    """What Pillow finds in a file besides the pixels."""
    image = pillow(path)
    block, info = image.getexif(), image.info
    about_pixels = {
        *range(0x100, 0x10A),
        0x10A,
        *range(0x111, 0x11A),
        0x11C,
        0x13D,
        0x153,
        700,
        34675,
        0x8769,
        0x8825,
    }
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    return {
        "first": {tag: value for tag, value in block.items() if tag not in about_pixels},
        "exif": dict(block.get_ifd(0x8769)),
        "gps": dict(block.get_ifd(0x8825)),
        "icc": info.get("icc_profile"),
        "xmp": xmp.encode() if isinstance(xmp, str) else xmp,
    }


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_metadata_is_kept(tmp_path: Path, source: str, target: str) -> None:
    options = {} if source == "png" else {"xmp": XMP}  # Pillow writes XMP into PNG only as text
    first = "jpg" if source == "tif" else source  # Pillow leaves the sub-directories out of TIFF
    path = save(tmp_path / f"a.{first}", exif=tags(), icc_profile=PROFILE, dpi=(300, 300), **options)
    if source == "tif":
        write_photo(read_photo(path), path := tmp_path / "a.tif")
    write_photo(read_photo(path), tmp_path / f"b.{target}")
    before, after = facts(path), facts(tmp_path / f"b.{target}")
    before["first"].pop(0x0112, None)
    after["first"].pop(0x0112, None)
    assert after == before
    assert before["exif"][0x927C] == b"MAKER\0\1\2\3" * 30
    resolution = pillow(tmp_path / f"b.{target}").info.get("dpi")
    assert resolution is None or resolution == pytest.approx((300, 300), abs=0.01)
    assert resolution or target in ("webp", "avif", "heic")


@pytest.mark.parametrize("target", ["jpg", "png", "heic", "webp", "avif"])
def test_the_exif_block_is_kept_byte_for_byte(tmp_path: Path, target: str) -> None:
    block = tags().tobytes().removeprefix(b"Exif\0\0")
    write_photo(read_photo(save(tmp_path / "a.jpg", exif=tags())), tmp_path / f"b.{target}")
    again = pillow(tmp_path / f"b.{target}").info["exif"].removeprefix(b"Exif\0\0")
    assert again == block if target in ("jpg", "png", "heic") else again.startswith(block)


def test_photos_without_metadata_get_none(tmp_path: Path) -> None:
    for target in FORMATS:
        write_photo(photo(), tmp_path / f"a.{target}")
        image = pillow(tmp_path / f"a.{target}")
        assert target == "tif" or not dict(image.getexif())
        assert not image.info.get("icc_profile")
        assert image.info.get("dpi", (72, 72)) == pytest.approx((72, 72), abs=0.01)


def test_stored_sizes_and_xmp_follow_the_turn_and_the_thumbnail_goes(tmp_path: Path) -> None:
    block = tags()
    block[0x0112] = 6
    thumbnail = io.BytesIO()
    Image.fromarray(PICTURE[:20, :20]).save(thumbnail, "jpeg")
    raw = bytearray(block.tobytes())
    at = 6 + 8 + 2 + 12 * struct.unpack_from(">H", raw, 14)[0]  # the pointer to the second directory
    struct.pack_into(">I", raw, at, len(raw) - 6)
    raw += struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, len(raw) - 6 + 30, 0x0202, 4, 1, thumbnail.tell(), 0)
    raw += thumbnail.getvalue()
    path = save(tmp_path / "a.jpg", exif=bytes(raw), xmp=XMP.replace(b'"1"', b'"6"'))
    assert struct.unpack_from(">I", pillow(path).info["exif"], at)[0] == 620
    write_photo(read_photo(path), tmp_path / "b.jpg")
    image = pillow(tmp_path / "b.jpg")
    assert image.size == (61, 83)
    assert image.getexif().get_ifd(0x8769)[0xA002] == 61
    assert image.getexif().get_ifd(0x8769)[0xA003] == 83
    assert struct.unpack_from(">I", image.info["exif"], at)[0] == 0
    assert image.info["xmp"] == XMP


def test_little_endian_exif(tmp_path: Path) -> None:
    block = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    block[0x0112], block[0x010F] = 8, "Maker"
    path = save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + block.tobytes(8))
    write_photo(read_photo(path), tmp_path / "b.jpg")
    again = pillow(tmp_path / "b.jpg")
    assert (again.size, again.getexif()[0x010F], again.getexif()[0x0112]) == ((61, 83), "Maker", 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_forged_exif_is_survived(data: st.DataObject) -> None:
    block = bytearray(tags().tobytes().removeprefix(b"Exif\0\0"))
    for _ in range(data.draw(st.integers(1, 5))):
        block[data.draw(st.integers(4, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = bytes(block[: data.draw(st.integers(0, len(block)))])
    assert len(exif.upright(block, 61, 83)) in (0, len(block))
    exif.resolution(block)
    exif.of_tiff(block)


def test_an_exif_block_too_long_for_jpeg(tmp_path: Path) -> None:
    block = tags()
    block.get_ifd(0x8769)[0x927C] = b"x" * 70_000
    start = read_photo(save(tmp_path / "a.png", exif=block))
    write_photo(start, tmp_path / "b.png")
    assert facts(tmp_path / "b.png") == facts(tmp_path / "a.png")
    with pytest.raises(UnwritablePhoto, match="EXIF block of 70,"):
        write_photo(start, tmp_path / "b.jpg")


# Bad input


def refused(path: Path, capfd: pytest.CaptureFixture[str], **options: int) -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        read_photo(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    assert capfd.readouterr() == ("", "")
    return message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, world\n" * 20, "is no JPEG"),
        (b"%PDF-1.7\n" + bytes(100), "is no JPEG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "is no JPEG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), "is no JPEG"),
        (b"GIF89a" + bytes(100), "is no JPEG"),
        (b"\xff\xd8\xff", "cut short"),
        (b"II*\0", "cut short"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"RIFF\x20\0\0\0WEBPVP8 ", "cut short"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "cut short"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "cut short"),
    ],
)
def test_what_is_no_photograph(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert words in refused(tmp_path / "a.jpg", capfd)


def test_missing_folder_and_permission(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such file" in refused(tmp_path / "a.jpg", capfd)
    assert "is a directory" in refused(tmp_path, capfd)

    def denied(*_: object, **__: object) -> None:  # the tests may run as root, who may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", denied)
    assert "permission denied" in refused(save(tmp_path / "b.jpg"), capfd)


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    whole = save(tmp_path / f"a.{suffix}", RNG.integers(0, 255, (128, 96, 3)).astype(np.uint8)).read_bytes()
    for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        (tmp_path / f"b.{suffix}").write_bytes(whole[: int(part * len(whole))])
        assert "cut short or damaged" in refused(tmp_path / f"b.{suffix}", capfd)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_give_a_photo_or_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    whole = save(tmp_path / f"a.{suffix}", exif=tags(), icc_profile=PROFILE).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 5):
            damaged[at] = rng.integers(0, 256)
        (tmp_path / f"b.{suffix}").write_bytes(damaged)
        try:
            read_photo(tmp_path / f"b.{suffix}", max_pixels=10**6)
        except UnreadablePhoto as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_nothing_on_stderr_whatever_the_file_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    profile = PROFILE[:68] + bytes(12) + PROFILE[80:]  # a black illuminant, at which libpng wonders
    damaged = bytearray(save(tmp_path / "a.png", icc_profile=profile).read_bytes())
    at = damaged.index(b"iCCP")
    (length,) = struct.unpack_from(">I", damaged, at - 4)
    damaged[at + 5] = 0xE8  # in the profile's name, which libpng's warning quotes
    struct.pack_into(">I", damaged, at + 4 + length, zlib.crc32(damaged[at : at + 4 + length]))
    (tmp_path / "a.png").write_bytes(damaged)
    assert read_photo(tmp_path / "a.png").width == 83
    assert capfd.readouterr() == ("", "")
    whole = save(tmp_path / "b.avif").read_bytes()
    size = struct.pack(">II", 83, 61)
    (tmp_path / "b.avif").write_bytes(whole.replace(size, struct.pack(">II", 83, 2_000_000_000)))
    refused(tmp_path / "b.avif", capfd)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bomb = bytearray(png16(np.zeros((1, 1, 3), np.uint16)))
    bomb[16:24] = struct.pack(">II", 60_000, 50_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "a.png").write_bytes(bomb)
    assert "60000 × 50000 is more than 500,000,000 pixels" in refused(tmp_path / "a.png", capfd)
    path = save(tmp_path / "b.png")
    assert "more than 5,000 pixels" in refused(path, capfd, max_pixels=5000)
    assert read_photo(path, max_pixels=61 * 83).width == 83


@pytest.mark.parametrize("suffix", ["webp", "tif", "png", "avif", "heic"])
def test_several_pictures_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    other = Image.fromarray(255 - PICTURE)
    path = save(tmp_path / f"a.{suffix}", save_all=True, append_images=[other])
    assert "several pictures" in refused(path, capfd)


def test_heic_without_the_extra(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install 'unsmear[heic]'" in refused(path, capfd)
    with pytest.raises(UnwritablePhoto, match="unsmear"):
        write_photo(photo(), tmp_path / "b.heic")


# Writing safely


def test_never_over_an_existing_file_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(UnwritablePhoto, match="exists already"):
        write_photo(photo(), path)
    assert path.read_text() == "precious"
    write_photo(photo(), path, overwrite=True)
    assert read_photo(path).width == 83


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    wide = Photo(pixels=np.zeros((1, 70_000, 3), np.uint8))
    for picture, name, words in [
        (photo(), "a.xyz", "suffix is none of"),
        (photo(), "a", "suffix is none of"),
        (photo(4), "a.jpg", "no transparency"),
        (wide, "a.jpg", "at most 65,500"),
        (wide, "a.webp", "at most 16,383"),
    ]:
        with pytest.raises(UnwritablePhoto, match=words):
            write_photo(picture, tmp_path / name)
    write_photo(wide, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_is_missing_or_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(UnwritablePhoto, match="no such file or directory"):
        write_photo(photo(), tmp_path / "none" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(UnwritablePhoto, match="is a directory"):
        write_photo(photo(), tmp_path / "b.png", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            if self.tell() + len(memoryview(data)) > 500:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)  # type: ignore[arg-type]

    path = tmp_path / f"a.{suffix}"
    path.write_text("precious")
    with monkeypatch.context() as patched, pytest.raises(UnwritablePhoto, match="no space left on device"):
        patched.setattr(Path, "open", lambda self, mode: io.BufferedRandom(Full(self, "x+b"), 200))
        write_photo(photo(), path, overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unsmear.photo.writing.exif.embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_photo(photo(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# Around it


@pytest.mark.parametrize("name", ["a[1].jpg", "a b.JPG", "ä–ü.Jpeg", "x[strip].jpg", "%d.jpg"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    write_photo(photo(), tmp_path / name)
    assert read_photo(tmp_path / name).format == "jpeg"


def test_content_not_suffix_tells_the_format(tmp_path: Path) -> None:
    save(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_photo(tmp_path / "a.jpg").format == "png"


def test_find_photos(tmp_path: Path) -> None:
    for name in ["b.JPG", "a.png", "sub/c.tif", "note.txt", ".hidden.jpg", ".cache/d.jpg", "sub/._c.tif"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [str(p.relative_to(tmp_path)) for p in find_photos(tmp_path)] == ["a.png", "b.JPG", "sub/c.tif"]
    assert ".heic" in PHOTO_SUFFIXES


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("suffix", FORMATS)
def test_shrink_averages(tmp_path: Path, suffix: str, shrink: int) -> None:
    picture = np.ascontiguousarray(skimage.data.astronaut()[:121, :203])
    small = read_photo(save(tmp_path / f"a.{suffix}", picture), shrink=shrink).pixels
    cut = picture[: 121 // shrink * shrink, : 203 // shrink * shrink]
    means = cut.reshape(121 // shrink, shrink, 203 // shrink, shrink, 3).mean((1, 3))
    assert small.shape == means.shape
    assert abs(small - means).mean() < (0.51 if suffix in ("png", "tif") else 4)


def test_shrink_has_an_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "cannot shrink 8 times" in refused(save(tmp_path / "a.jpg", PICTURE[:7]), capfd, shrink=8)
    with pytest.raises(ValueError, match="not 3"):
        read_photo(tmp_path / "a.jpg", shrink=3)


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_import_leaves_torch_alone() -> None:
    run("import sys, unsmear.photo; assert not {'torch', 'PIL', 'pillow_heif'} & set(sys.modules)")


def test_reading_works_in_a_forked_worker_and_writing_says_why_not(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    run(f"""
import os, signal
from unsmear.errors import UnwritablePhoto
from unsmear.photo import read_photo, write_photo
photo = read_photo({str(path)!r})
write_photo(photo, {str(tmp_path / "b.png")!r})
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(30)
assert (read_photo({str(tmp_path / "b.png")!r}).pixels == read_photo({str(path)!r}).pixels).all()
try:
    write_photo(photo, {str(tmp_path / "c.png")!r})
except UnwritablePhoto as error:
    assert "fork" in str(error)
    os._exit(0)
os._exit(1)
""")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadablePhoto, match=r"pipe\.jpg: it is no regular file"):
        read_photo(tmp_path / "pipe.jpg")
