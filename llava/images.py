"""Pictures as people have them: files of any kind, any mode and depth, any size, in bounded memory."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

PIXELS_AT_ONCE = 1 << 24  # of a padded or a whole picture, 4 bytes each in PIL
LONGEST_EXACT = 1 << 15  # pixels along a side; padding squares the side, and time with it


def open_image(source: str | Path | bytes) -> Image.Image:
    """Read an image completely, in the mode it was stored in; of an animation the first frame.

    EXIF orientation is not applied: the pixels are those of the file, as in LLaVA.

    Args:
        source: a file, or its content.

    Raises:
        ValueError: it is no image, broken, cut short, too large for Pillow's limit, or has no pixel. The message says
            why, and leaves the name to the caller, who may know a better one.
        OSError: there is no such file.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on corrupt data
        raise ValueError(str(error) or type(error).__name__) from error
    refuse_empty(image)
    return image


def refuse_empty(image: Image.Image) -> None:
    """Raise ValueError for an image without a pixel, TypeError for what is no image."""
    if not isinstance(image, Image.Image):
        raise TypeError(f"images must be PIL images, not {type(image).__name__}")
    if 0 in image.size:
        raise ValueError(f"an image of {image.size[0]} x {image.size[1]} pixels shows nothing")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any PIL mode to RGB.

    Grey of more than 8 bits is scaled to 8, where PIL alone would clip it: 16-bit integers, and floats by what they
    reach (up to 1, up to 255, or 16 bits). Transparency is dropped, as in LLaVA.

    Raises:
        ValueError: the image has no pixel.
    """
    refuse_empty(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # "I" has 32 bits, yet may hold a 16-bit or an 8-bit image
        deep = image.mode != "I" or max(levels.max() for _, levels in _strips(image)) > 255
        image = _grey(image, lambda levels: levels >> 8 if deep else levels)
    elif image.mode == "F":
        highest = max(_finite(levels).max() for _, levels in _strips(image))
        factor = 255 if highest <= 1 else 1 / 256 if highest > 255 else 1
        image = _grey(image, lambda levels: _finite(levels) * np.float32(factor))
    elif image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
    elif image.mode == "La":  # grey with its alpha multiplied in, which PIL turns into one other mode alone
        image = image.convert("LA")
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """An image some rows at a time: the first row's number, and the levels (rows, width)."""
    width, height = image.size
    rows = max(1, PIXELS_AT_ONCE // (8 * width))  # scaling a level makes several copies of it, up to 8 bytes each
    for top in range(0, height, rows):
        yield top, np.asarray(image.crop((0, top, width, min(top + rows, height))))


def _finite(levels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(levels, nan=0.0, posinf=0.0, neginf=0.0)


def _grey(image: Image.Image, scale: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """An 8-bit image of the levels that ``scale`` brings to 8 bits, strip by strip: whole, it would take gigabytes."""
    grey = Image.new("L", image.size)
    for top, levels in _strips(image):
        grey.paste(Image.fromarray(np.clip(scale(levels), 0, 255).astype(np.uint8)), (0, top))
    return grey


def shrink(image: Image.Image, shortest: int, resample: Image.Resampling) -> Image.Image:
    """Scale a large image so that its shorter side has ``shortest`` pixels, as CLIP's image processor does.

    The processor makes several copies of what it is given, up to 14 bytes per pixel; this makes none. Images of up to
    ``PIXELS_AT_ONCE`` pixels come back as they are.
    """
    width, height = image.size
    if width * height <= PIXELS_AT_ONCE:
        return image
    longest = int(shortest * max(width, height) / min(width, height))
    return image.resize((shortest, longest) if width <= height else (longest, shortest), resample)


def shrink_padded(image: Image.Image, colour: tuple[int, ...], side: int, resample: Image.Resampling) -> Image.Image:
    """Pad an RGB image to a square about its centre and scale the square to ``side``, without ever holding it whole.

    PIL scales rows first and columns of the result afterwards, both rounded to 8 bits; so does this, some rows at a
    time, hence the result is the same to the last bit. Of an image that is longer than ``LONGEST_EXACT`` pixels, the
    image itself is scaled to that first, which is another result, in time that stays bounded.
    """
    if max(image.size) > LONGEST_EXACT:
        scale = LONGEST_EXACT / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)
    width, height = image.size
    whole = max(width, height)
    left, top = (whole - width) // 2, (whole - height) // 2
    row = Image.new("RGB", (whole, 1), colour).resize((side, 1), resample)
    narrow = row.resize((side, whole), Image.Resampling.NEAREST)
    rows = max(1, PIXELS_AT_ONCE // whole)
    for start in range(0, height, rows):
        part = image.crop((0, start, width, min(start + rows, height)))
        strip = Image.new("RGB", (whole, part.height), colour)
        strip.paste(part, (left, 0))
        narrow.paste(strip.resize((side, part.height), resample), (0, top + start))
    return narrow.resize((side, side), resample)
