"""What visitors upload: bounded and checked by its header before a pixel is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from llava.asking.images import upright
from llava.images import to_rgb
from llava.records import InputError

LARGEST_FILE = 20 * 2**20
MOST_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read, by Pillow's names. Other decoders are never tried."""


def read_picture(path: str | Path | None) -> Image.Image:
    """Read an uploaded picture: its first frame in RGB, turned as its EXIF says.

    Args:
        path: where the upload lies; None is no upload.

    Raises:
        InputError: there is none, it is too large in bytes or pixels, is no picture of a known kind, or is broken; in
            words for the visitor, without the name of a file.
    """
    with _opened(path) as image:
        image.load()
        return to_rgb(upright(image))


def check_picture(path: str | Path) -> None:
    """Raise InputError, as ``read_picture``, for what a header tells; no pixel is decoded."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: str | Path | None) -> Iterator[Image.Image]:
    """A picture of which the header alone is read and checked; what Pillow raises within becomes an InputError."""
    if path is None:
        raise InputError("No picture: upload one, take one with the webcam, or choose an example.")
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError("The picture is not here any more: choose it again.") from error
    if size > LARGEST_FILE:
        raise InputError(f"The picture has {size / 2**20:.1f} MiB; at most {LARGEST_FILE // 2**20} MiB are read.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image.size)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"The picture has more than {MOST_PIXELS / 1e6:.0f} megapixels, the most that are read."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise InputError("This is no picture that can be read: PNG, JPEG, WebP, GIF, BMP and TIFF can.") from error
    except Exception as error:  # Pillow's decoders raise many types on corrupt data
        raise InputError("The picture is broken: it cannot be decoded to its end.") from error


def _check_pixels(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise InputError(
            f"The picture has {width} x {height} pixels; at most {MOST_PIXELS / 1e6:.0f} megapixels are read."
        )
