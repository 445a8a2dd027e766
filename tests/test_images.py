"""Pictures as people have them: an image or one clear error, and never more memory than the picture itself takes."""

import random
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

import llava.images
from llava.images import open_image, shrink, shrink_padded, to_rgb
from llava.mm_utils import expand2square, load_image_from_base64, process_images

MEAN_COLOUR = (122, 116, 104)


def settings_of(layout):
    return types.SimpleNamespace(image_aspect_ratio=layout, image_grid_pinpoints=[[336, 672], [672, 336]])


def gradient(width, height):
    levels = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def small_limit(monkeypatch):
    """What is done with large pictures is done with small ones, a few rows at a time."""
    for module in (llava.images, sys.modules["llava.mm_utils"]):
        monkeypatch.setattr(module, "PIXELS_AT_ONCE", 3000)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("layout", ["pad", None])
def test_a_large_picture_is_prepared_as_a_small_one_to_the_last_bit(small_limit, seed, layout):
    chance = random.Random(seed)
    size = chance.randint(1, 500), chance.randint(1, 500)
    side, resample = chance.choice([24, 97, 336]), chance.choice([2, 3, 1])
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, resample=resample
    )
    image = noise(*size, seed)
    plain = expand2square(image, MEAN_COLOUR) if layout == "pad" else image
    expected = processor.preprocess(plain, return_tensors="np")["pixel_values"]
    assert np.array_equal(process_images([image], processor, settings_of(layout)), expected), (size, side)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (399, 400), (400, 399), (400, 400)])
@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_padding_and_scaling_are_one_in_strips(small_limit, size, resample):
    image = noise(*size)
    expected = expand2square(image, MEAN_COLOUR).resize((64, 64), resample)
    assert np.array_equal(shrink_padded(image, MEAN_COLOUR, 64, resample), expected)


def test_a_small_picture_is_left_to_the_processor():
    image = noise(30, 20)
    assert shrink(image, 10, Image.Resampling.BICUBIC) is image


def test_the_longest_pictures_are_shortened_first(monkeypatch):
    monkeypatch.setattr(llava.images, "LONGEST_EXACT", 400)
    long = shrink_padded(Image.new("RGB", (100_000, 300), "white"), MEAN_COLOUR, 64, Image.Resampling.BICUBIC)
    expected = shrink_padded(Image.new("RGB", (400, 1), "white"), MEAN_COLOUR, 64, Image.Resampling.BICUBIC)
    assert np.array_equal(long, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process takes is counted otherwise")
def test_a_long_screenshot_and_a_deep_picture_take_no_gigabytes():
    program = """
import torch, types
from PIL import Image
from transformers import CLIPImageProcessorPil
from llava.mm_utils import process_images, to_rgb
from llava.model.memory import peak_mb
processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
peak = lambda: peak_mb(torch.device("cpu"))
settings = [types.SimpleNamespace(image_aspect_ratio=layout) for layout in ("pad", None)]
process_images([Image.new("RGB", (9, 9))], processor, settings[0])
before = peak()
for each in settings:
    process_images([Image.new("RGB", (15000, 900))], processor, each)
to_rgb(Image.new("F", (5000, 5000)))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300  # MiB; the padded square alone would be 860, and the processor made copies
    # The deep picture has 95, and 95 as RGB; scaled whole, it took 400.


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 127, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-5.0, float("nan"), 1.0], [0, 0, 255]),
    ],
)
def test_floats_are_scaled_by_what_they_reach(levels, expected):
    image = Image.fromarray(np.array([levels], dtype=np.float32))
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("mode", "kind", "highest"), [("F", "f4", 300), ("F", "f4", 1), ("I", "i4", 999), ("I;16", "u2", 9)]
)
def test_deep_pictures_are_scaled_as_a_whole_though_strip_by_strip(small_limit, monkeypatch, mode, kind, highest):
    levels = np.random.default_rng(0).uniform(0, highest, (90, 70)).astype(kind)
    image = Image.fromarray(levels)
    assert image.mode == mode
    strips = to_rgb(image)
    monkeypatch.setattr(llava.images, "PIXELS_AT_ONCE", 8 * levels.size)
    assert strips == to_rgb(image)


@pytest.mark.parametrize("mode", ["LAB", "RGBX", "RGBa", "La", "I;16", "I;16B", "CMYK", "YCbCr"])
def test_rare_modes_become_rgb(mode):
    image = Image.new(mode, (3, 2))
    assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (3, 2))


def test_lab_colours_are_those_they_name():
    red, green, blue = to_rgb(Image.new("LAB", (1, 1), (138, 208, 194))).getpixel((0, 0))  # L 54, a 80, b 66: red
    assert red > 230 and max(green, blue) < 40


def test_transparency_is_dropped_as_in_llava(tmp_path):
    image = gradient(20, 10).quantize(16)
    image.save(tmp_path / "palette.png", transparency=0)
    opened = open_image(tmp_path / "palette.png")
    assert opened.mode == "P" and "transparency" in opened.info
    assert np.array_equal(to_rgb(opened), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving", format=kind, save_all=True, append_images=frames[1:], lossless=True)
    red, green, blue = to_rgb(open_image(tmp_path / "moving")).getpixel((4, 3))
    assert red > 240 and max(green, blue) < 20


def test_the_camera_was_turned_and_the_picture_stays_as_it_is_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "photo.jpg", exif=exif)
    assert open_image(tmp_path / "photo.jpg").size == (8, 4)
    assert open_image((tmp_path / "photo.jpg").read_bytes()).size == (8, 4)


def test_what_is_no_whole_picture_is_one_kind_of_error(tmp_path, monkeypatch):
    noise(40, 40).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    for content in (b"", b"GIF89a", b"no picture", whole[: len(whole) // 2], whole[:20], b"P6 0 5 255\n"):
        (tmp_path / "cut.jpg").write_bytes(content)
        for source in (content, tmp_path / "cut.jpg"):
            with pytest.raises(ValueError, match="."):
                open_image(source)
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "missing.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="decompression bomb"):
        open_image(whole)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("layout", ["pad", "anyres", None])
def test_a_picture_without_a_pixel_is_refused(clip_processor, size, layout):
    for mode in ("RGB", "I;16", "F"):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels"):
            process_images([Image.new(mode, size)], clip_processor, settings_of(layout))


@pytest.mark.parametrize("text", ["", "!", "bm8gcGljdHVyZQ==", "\u00e9"])
def test_base64_that_holds_no_picture_is_refused(text):
    with pytest.raises(ValueError, match="cannot read an image from base64"):
        load_image_from_base64(text)


@pytest.mark.parametrize("layout", ["anyres_max_9", "highres", "PAD", "", 3, ["pad"]])
def test_an_unknown_layout_names_the_known_ones(clip_processor, layout):
    with pytest.raises(ValueError, match="image_aspect_ratio .* is not one of null, square, pad, anyres"):
        process_images([gradient(30, 10)], clip_processor, settings_of(layout))


@pytest.mark.parametrize("pinpoints", [None, [], "(1x1),(2x2)", "[[336", [[100, 336]], [[336]]])
def test_canvases_that_are_none_are_refused(clip_processor, pinpoints):
    settings = settings_of("anyres")
    settings.image_grid_pinpoints = pinpoints
    with pytest.raises(ValueError, match="image_grid_pinpoints"):
        process_images([gradient(30, 10)], clip_processor, settings)


@pytest.mark.parametrize("image", ["a.png", None, np.zeros((8, 8, 3), np.uint8), [[0]], b"png"])
def test_what_is_no_picture_is_named(image):
    with pytest.raises(TypeError, match=f"images must be PIL images, not {type(image).__name__}"):
        to_rgb(image)
