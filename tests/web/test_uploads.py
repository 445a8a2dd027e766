import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llava.asking import images
from llava.records import InputError
from llava.web.uploads import LARGEST_FILE, MOST_PIXELS, check_picture, read_picture

RED, BLUE = (200, 10, 10), (10, 10, 200)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path, width: int, height: int):
    """A PNG of a few bytes that says it has so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    return path


def test_a_picture_is_read(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (7, 5), RED).save(path)
    read = read_picture(path)
    assert (read.size, read.mode, read.getpixel((0, 0))) == ((7, 5), "RGB", RED)
    check_picture(path)


def test_no_picture():
    with pytest.raises(InputError, match="No picture: upload one"):
        read_picture(None)


def test_an_upload_that_is_gone_is_not_named(tmp_path):
    with pytest.raises(InputError, match="not here any more") as refused:
        read_picture(tmp_path / "secret.png")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("width, height", [(10_000, 5_001), (20_000, 20_000), (60_000, 60_000)])
@pytest.mark.parametrize("read", [read_picture, check_picture])
def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch, read, width, height):
    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(InputError, match=r"at most 50 megapixels|more than 50 megapixels"):
        read(bomb(tmp_path / "bomb.png", width, height))


def test_as_many_pixels_as_are_allowed_are_read(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (10_000, MOST_PIXELS // 10_000)).save(path)
    assert read_picture(path).size == (10_000, 5000)


def test_too_many_bytes_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 5)).save(path)
    with path.open("ab") as file:
        file.truncate(LARGEST_FILE)
    check_picture(path)
    with path.open("ab") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(InputError, match="at most 20 MiB"):
        check_picture(path)


@pytest.mark.parametrize(
    "name, content", [("a.png", b"no picture"), ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("a", b"")]
)
def test_what_is_no_picture_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match="no picture that can be read: PNG"):
        check_picture(path)


def test_other_decoders_are_never_tried(tmp_path):
    path = tmp_path / "a.png"  # the name says nothing
    Image.new("RGB", (5, 5)).save(path, "PPM")
    with pytest.raises(InputError, match="no picture that can be read"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_picture_that_breaks_off_is_refused(tmp_path, kind):
    path = tmp_path / "a"
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match="broken|no picture"):
        read_picture(path)


@pytest.mark.parametrize("turn, first", [(1, RED), (3, BLUE), (6, RED), (8, BLUE)])
def test_a_photo_is_turned_as_its_exif_says(tmp_path, turn, first):
    photo = Image.new("RGB", (16, 8), RED)
    photo.paste(BLUE, (8, 0, 16, 8))
    exif = Image.Exif()
    exif[274] = turn
    photo.save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    assert read.size == ((16, 8) if turn in (1, 3) else (8, 16)) and read.getpixel((0, 0)) == first
    assert read.getexif().get(274, 1) == 1  # it is turned once


def test_a_photo_with_a_second_one_behind_it_is_read(tmp_path):
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.allclose(read_picture(tmp_path / "a.jpg").getpixel((0, 0)), RED, atol=12)


def test_a_photo_whose_exif_cannot_be_read_is_one(tmp_path, monkeypatch):
    tried = []

    def exif_transpose(image):
        tried.append(image)
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(images.ImageOps, "exif_transpose", exif_transpose)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    Image.new("RGB", (16, 8), RED).save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    assert (read.size, read.getpixel((0, 0)), len(tried)) == ((16, 8), RED, 1)


@pytest.mark.parametrize(
    "mode, kind", [("CMYK", "JPEG"), ("I;16", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "PNG")]
)
def test_pictures_of_every_kind_become_rgb(tmp_path, mode, kind):
    if mode == "I;16":
        made = Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16))
    else:
        made = Image.new("RGB", (6, 6), RED).convert(mode)
    made.save(tmp_path / "a", kind)
    read = read_picture(tmp_path / "a")
    assert read.mode == "RGB" and read.size == (6, 6)
    if mode == "I;16":
        assert read.getpixel((0, 0)) == (156, 156, 156)
    elif mode not in ("LA", "1"):
        assert np.allclose(read.getpixel((3, 3)), RED, atol=12)
