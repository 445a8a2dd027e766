"""What users name as images: files, addresses, arrays."""

import logging
import os
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from llava.images import open_image
from llava.records import InputError

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
ADDRESSES = ("http://", "https://")
VIDEOS = (".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv", ".3gp", ".ts")
ORIENTATION = 0x0112  # EXIF's tag


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
        if image_file.startswith(ADDRESSES):
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

    Photos are turned as their EXIF says. Files that have the name of a video, arrays of frames (T, H, W, 3), and what
    is none of these come back as they are.

    Raises:
        InputError: a file or an address that is no image.
        ValueError: an array of another form.
    """
    if isinstance(shown, list | tuple):
        return [visual for each in shown for visual in visuals_of(each)]
    if isinstance(shown, str | Path):
        return [str(shown)] if names_video(str(shown)) else [upright(load_image(str(shown)))]
    if isinstance(shown, np.ndarray):
        return [_of_array(shown)]
    return [] if shown is None else [upright(shown) if isinstance(shown, Image.Image) else shown]


def upright(image: Image.Image) -> Image.Image:
    """A photo turned as its EXIF says it was taken; any other image as it is."""
    try:
        return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except Exception:  # what Pillow makes of broken EXIF is anything; the pixels are whole
        logger.warning("the EXIF of an image cannot be read: it is shown as it is stored")
        return image


def names_video(name: str) -> bool:
    """Whether a file, of this machine, has the name of a video."""
    return name.lower().endswith(VIDEOS) and not name.startswith(ADDRESSES)


def refuse_foreign(visuals: Sequence[Any], name: str) -> None:
    """Raise ValueError, which names it and the question, for what LLaVA's own format does not read: all but images."""
    for visual in visuals:
        if isinstance(visual, Image.Image):
            continue
        shown = visual if isinstance(visual, str) else type(visual).__name__
        raise ValueError(
            f"{name} shows {shown}: a model in LLaVA's own format (llava_pruned) reads images alone; "
            "Transformers' models of videos (vlm_pruned) read clips, too"
        )


def _of_array(array: np.ndarray) -> Image.Image | np.ndarray:
    """An array (H, W, 3) as an image; one of frames (T, H, W, 3) stays one."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or not array.size:
        raise ValueError(
            "an array must be an image (H, W, 3) or frames (T, H, W, 3) of 8 bits (uint8), "
            f"not {array.shape} of {array.dtype}"
        )
    return Image.fromarray(array) if array.ndim == 3 else array


def images_in(folder: Path) -> list[Path]:
    """The files in a folder that have the name of an image, sorted."""
    known = Image.registered_extensions()
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in known)
