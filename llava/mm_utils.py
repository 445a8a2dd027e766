"""From what the user has (images, a prompt, a path) to what the model takes (pixels, token ids, a name).

Sizes are (width, height) in pixels throughout, as in PIL; ``tiles`` are the square crops of an image that the vision
encoder sees one by one, the resized whole image first.
"""

import base64
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.images import PIXELS_AT_ONCE, open_image, shrink, shrink_padded, to_rgb
from llava.layout import check_aspect_ratio, check_pinpoints
from llava.utils import encodable

Size = tuple[int, int]


def load_image_from_base64(image: str | bytes) -> Image.Image:
    """Decode the base64 of an image file, in whatever mode the file has.

    Raises:
        ValueError: it is no base64, or not of an image that is whole.
    """
    try:
        return open_image(base64.b64decode(image))
    except ValueError as error:
        raise ValueError(f"cannot read an image from base64: {error}") from error


def expand2square(pil_img: Image.Image, background_color) -> Image.Image:
    """Centre an image on a square of its longer side, in its own mode; a square image comes back as it is."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Size]) -> Size:
    """Choose the canvas that keeps most of the image's pixels and, among equals, wastes the least of its own.

    Args:
        original_size: (width, height) of the image.
        possible_resolutions: canvases (width, height) to choose from; the first of several equally good ones wins.

    Raises:
        ValueError: if there is nothing to choose from.
    """
    if not possible_resolutions:
        raise ValueError("no resolution to choose from: image_grid_pinpoints is empty")
    width, height = original_size

    def merit(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return used, used - canvas[0] * canvas[1]

    chosen = max(possible_resolutions, key=merit)
    return chosen[0], chosen[1]


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """Scale an image to fit the target (width, height), proportions kept, and centre it on black."""
    (width, height), (target_width, target_height) = image.size, target_resolution
    if target_width / width < target_height / height:
        size = target_width, min(math.ceil(height * (target_width / width)), target_height)
    else:
        size = min(math.ceil(width * (target_height / height)), target_width), target_height
    canvas = Image.new("RGB", (target_width, target_height), (0, 0, 0))
    canvas.paste(image.resize(size), ((target_width - size[0]) // 2, (target_height - size[1]) // 2))
    return canvas


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Cut an image into squares of ``patch_size`` pixels, row by row."""
    width, height = image.size
    corners = [(x, y) for y in range(0, height, patch_size) for x in range(0, width, patch_size)]
    return [image.crop((x, y, x + patch_size, y + patch_size)) for x, y in corners]


def get_anyres_image_grid_shape(image_size: Size, grid_pinpoints: str | Sequence[Size], patch_size: int) -> Size:
    """Return the number of tiles (across, down) in which an image of this size is seen.

    Args:
        image_size: (width, height) of the image.
        grid_pinpoints: the canvases (width, height) of the checkpoint, as a list or as its string form.
        patch_size: side of a tile.

    Raises:
        ValueError: ``grid_pinpoints`` are of another form, or the image has no pixel.
    """
    if min(image_size) <= 0:
        raise ValueError(f"an image of {image_size[0]} x {image_size[1]} pixels has no tiles")
    width, height = select_best_resolution(image_size, check_pinpoints(grid_pinpoints))
    return width // patch_size, height // patch_size


def process_anyres_image(image: Image.Image, processor, grid_pinpoints: str | Sequence[Size]) -> Tensor:
    """Return the tiles of an image: the whole of it, squeezed to a square, then the tiles of its best canvas.

    Args:
        image: the image, in any mode.
        processor: the CLIP image processor of the vision tower.
        grid_pinpoints: as in ``get_anyres_image_grid_shape``.

    Raises:
        ValueError: ``grid_pinpoints`` are of another form or not cut evenly into tiles, or the image has no pixel.
    """
    image, tile = to_rgb(image), processor.crop_size["height"]
    canvas = select_best_resolution(image.size, check_pinpoints(grid_pinpoints, tile))
    tiles = divide_to_patches(resize_and_pad_image(image, canvas), tile)
    side = getattr(processor.size, "shortest_edge", None) or tile
    return torch.stack([_pixels(tile, processor) for tile in [image.resize((side, side)), *tiles]])  # (B, 3, H, W)


def process_images(images: Sequence[Image.Image], image_processor, model_cfg) -> Tensor | list[Tensor]:
    """Prepare images, of any size and mode, for the vision tower, as ``model_cfg.image_aspect_ratio`` says.

    ``pad`` pads to a square with the processor's mean colour, ``anyres`` cuts into tiles by
    ``model_cfg.image_grid_pinpoints``, ``square`` and None crop the centre. Large images take no more memory than
    their own size and a fixed amount.

    Returns:
        One tensor, (images, 3, H, W) or, for ``anyres``, (images, B, 3, H, W); a list with one tensor per image where
        their numbers of tiles differ.

    Raises:
        ValueError: the layout is none of these, its ``image_grid_pinpoints`` are no canvases, or an image has no pixel.
    """
    aspect_ratio = check_aspect_ratio(getattr(model_cfg, "image_aspect_ratio", None))
    images = [to_rgb(image) for image in images]
    if aspect_ratio == "pad":
        pixels = [_pixels(_padded(image, image_processor), image_processor) for image in images]
    elif aspect_ratio == "anyres":
        pinpoints = getattr(model_cfg, "image_grid_pinpoints", None)
        pixels = [process_anyres_image(image, image_processor, pinpoints) for image in images]
    else:
        pixels = [_pixels(_cropped(image, image_processor), image_processor) for image in images]
    return torch.stack(pixels) if len({tensor.shape for tensor in pixels}) == 1 else pixels


def _padded(image: Image.Image, processor) -> Image.Image:
    """Pad an image to a square; a large one comes scaled to what the processor would scale the square to."""
    colour = tuple(int(channel * 255) for channel in processor.image_mean)
    if max(image.size) ** 2 <= PIXELS_AT_ONCE or not (shortest := _shortest_edge(processor)):
        return expand2square(image, colour)
    return shrink_padded(image, colour, shortest, processor.resample)


def _cropped(image: Image.Image, processor) -> Image.Image:
    """Return an image whose centre the processor is to crop; of a large one, what it would scale it to."""
    image, shortest = _without_far_ends(image), _shortest_edge(processor)
    return shrink(image, shortest, processor.resample) if shortest else image


def _shortest_edge(processor) -> int | None:
    """Return what the processor scales the shorter side of an image to; None if it does something else with PIL."""
    by_pil = processor.do_resize and isinstance(processor.resample, int)
    return getattr(processor.size, "shortest_edge", None) if by_pil else None


def _without_far_ends(image: Image.Image, longest: int = 32) -> Image.Image:
    """Shorten an image of more than 32 times its shorter side about its centre, which alone survives a centre crop.

    Scaled whole to CLIP's shorter side, an image of 10000 x 1 pixels would take gigabytes.
    """
    limit = longest * min(image.size)
    left, top = (max(0, side - limit) // 2 for side in image.size)
    if not (left or top):
        return image
    return image.crop((left, top, image.width - left, image.height - top))


def _pixels(image: Image.Image, processor) -> Tensor:
    return processor.preprocess(image, return_tensors="pt")["pixel_values"][0]  # (3, H, W)


def tokenizer_image_token(
    prompt: str, tokenizer, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> list[int] | Tensor:
    """Tokenize a prompt piece by piece between its ``<image>`` marks, each of which becomes ``image_token_index``.

    The checkpoints were trained on separately tokenized pieces; the beginning-of-sequence token stands once, in front.

    Returns:
        A list of ids or, with ``return_tensors="pt"``, a 1-D int64 tensor.

    Raises:
        ValueError: if ``return_tensors`` is neither None nor ``"pt"``.
        TypeError: if ``prompt`` is no string.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors is {return_tensors!r}; valid values: None, 'pt'")
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt must be a string, not {type(prompt).__name__}")
    pieces = [_tokenize_piece(piece, tokenizer) for piece in encodable(prompt).split(DEFAULT_IMAGE_TOKEN)]
    starts_with_bos = bool(pieces[0]) and pieces[0][0] == tokenizer.bos_token_id
    ids = list(pieces[0])
    for piece in pieces[1:]:
        ids += [image_token_index, *piece[int(starts_with_bos) :]]
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


def _tokenize_piece(piece: str, tokenizer) -> list[int]:
    # The Llama tokenizer of transformers 5 swallows one leading space that LLaVA's checkpoints were trained with.
    if piece.startswith((" ", "▁")) and tokenizer(" a").input_ids == tokenizer("a").input_ids:
        piece = " " + piece
    return tokenizer(piece).input_ids


def get_model_name_from_path(model_path: str) -> str:
    """Return the last part of a checkpoint's path, joined to its parent's name for a ``checkpoint-N`` of a training."""
    *parents, name = model_path.strip("/").split("/")
    return f"{parents[-1]}_{name}" if parents and name.startswith("checkpoint-") else name


class KeywordsStoppingCriteria(StoppingCriteria):
    """Ends a row of a batch as soon as what was generated in it ends with, or has just completed, a keyword.

    Args:
        keywords: strings to stop at.
        tokenizer: tokenizer of the model.
        input_ids: (B, L) prompt. It is told apart from what is generated whether or not ``generate`` repeats it, as it
            does for a prompt of ids and does not for one of embeddings.
    """

    def __init__(self, keywords: Sequence[str], tokenizer, input_ids: Tensor):
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.input_ids = input_ids
        self.keyword_ids = [self._ids(keyword) for keyword in self.keywords]
        self.max_keyword_len = max((len(ids) for ids in self.keyword_ids), default=0)

    def __call__(self, output_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """Return which rows of ``output_ids`` (B, L) are finished: (B,) bool."""
        generated = output_ids[:, self._prompt_len(output_ids) :]
        tails = generated[:, max(0, generated.shape[1] - self.max_keyword_len) :]  # (B, longest keyword)
        finished = [self._stops(ids.tolist()) for ids in tails]
        return torch.tensor(finished, dtype=torch.bool, device=output_ids.device)

    def _ids(self, keyword: str) -> list[int]:
        ids = self.tokenizer(keyword).input_ids
        return ids[1:] if len(ids) > 1 and ids[0] == self.tokenizer.bos_token_id else ids

    def _prompt_len(self, output_ids: Tensor) -> int:
        prompt = self.input_ids[0].to(output_ids.device)
        repeated = output_ids.shape[1] > len(prompt) and torch.equal(output_ids[0, : len(prompt)], prompt)
        return len(prompt) if repeated else 0

    def _stops(self, tail: list[int]) -> bool:
        if any(ids and tail[-len(ids) :] == ids for ids in self.keyword_ids):
            return True
        text = self.tokenizer.decode(tail)
        return any(keyword in text for keyword in self.keywords)
