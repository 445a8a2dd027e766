"""What users name as images: files, addresses, arrays."""

import os
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.images import open_image
from llava.records import InputError

TIMEOUT_S = 30


def image_parser(args: Any) -> list[str]:
    """Split ``args.image_file`` at ``args.sep``; the name of an existing file is taken whole.

    Raises:
        InputError: there is nothing to split at.
    """
    if not args.sep:
        raise InputError("--sep is empty: it stands between the names of images")
    whole = os.path.expanduser(args.image_file)
    return [whole] if os.path.exists(whole) else args.image_file.split(args.sep)


def load_image(image_file: str) -> Image.Image:
    """Read an image from a file or an http(s) address.

    Raises:
        InputError: it cannot be fetched or is no image.
    """
    try:
        if image_file.startswith(("http://", "https://")):
            with urllib.request.urlopen(image_file, timeout=TIMEOUT_S) as response:
                return open_image(response.read())
        return open_image(os.path.expanduser(image_file))
    except (HTTPException, OSError, ValueError) as error:
        raise InputError(f"cannot read the image {image_file}: {error}") from error


def load_images(image_files: Sequence[str]) -> list[Image.Image]:
    """Read several images, see ``load_image``."""
    return [load_image(image_file) for image_file in image_files]


def visuals_of(shown: Any) -> list[Any]:
    """What a question shows, as a list: files and addresses are read, arrays (H, W, 3) become images, None is nothing.

    Raises:
        InputError: a file or an address that is no image.
    """
    if isinstance(shown, list | tuple):
        return [visual for each in shown for visual in visuals_of(each)]
    if isinstance(shown, str | Path):
        return [load_image(str(shown))]
    return [] if shown is None else [Image.fromarray(shown) if isinstance(shown, np.ndarray) else shown]


def images_in(folder: Path) -> list[Path]:
    """The files in a folder that have the name of an image, sorted."""
    known = Image.registered_extensions()
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in known)
