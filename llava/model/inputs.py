"""What a LLaVA model is called with, refused by name where it comes in if it is of another form."""

from typing import Any

import torch
from torch import Tensor, nn

from llava.constants import IMAGE_TOKEN_INDEX
from llava.selecting.options import check_texts


def check_call(body: nn.Module, ids: Any, mask: Any, labels: Any, images: Any, image_sizes: Any, texts: Any) -> None:
    """Refuse a call of another form than a model with this body reads; raises what the checks of its parts do."""
    check_prompts(ids, mask, labels, body.embed_tokens.num_embeddings)
    check_texts(texts)
    if images is not None:
        check_images(images, image_sizes, body.get_vision_tower().config.image_size)
    elif bool((ids == IMAGE_TOKEN_INDEX).any()):
        raise ValueError("the prompt shows an <image>, but `images` is None")


def check_prompts(ids: Any, mask: Any, labels: Any, rows: int) -> None:
    """Refuse ids, attention mask or labels of a batch that are of another form.

    Args:
        ids: (B, L), ``IMAGE_TOKEN_INDEX`` where an image stands.
        mask: (B, L), 0 for padding; or None.
        labels: (B, L) or None.
        rows: of the table of words, which the ids must be of.

    Raises:
        TypeError: for something else than a tensor, or other numbers.
        ValueError: for another shape, ids of no word, a mask that is added to scores, prompts without a token.
    """
    if not isinstance(ids, Tensor):
        raise TypeError(f"input_ids must be a tensor (B, L), not {type(ids).__name__}")
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"input_ids must be int64 or int32, not {ids.dtype}")
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"input_ids must be of shape (B, L), not {tuple(ids.shape)}")
    for name, value in (("attention_mask", mask), ("labels", labels)):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor (B, L) or None, not {type(value).__name__}")
        if value is not None and value.shape != ids.shape:
            raise ValueError(f"{name} must be of input_ids' shape {tuple(ids.shape)}, not {tuple(value.shape)}")
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool().to(ids.device)
    if mask is not None and mask.is_floating_point() and bool((mask < 0).any()):
        raise ValueError(
            "attention_mask must be 0 for padding and 1 elsewhere; one that is added to scores is not read"
        )
    if not bool(real.any(dim=1).all()):
        raise ValueError("attention_mask leaves nothing of a prompt")
    if not bool((~real | (ids == IMAGE_TOKEN_INDEX) | ((ids >= 0) & (ids < rows))).all()):
        raise ValueError(f"input_ids must be from 0 to {rows - 1}, or {IMAGE_TOKEN_INDEX} for an image")


def check_images(images: Any, image_sizes: Any, side: int) -> None:
    """Refuse pixels of another form than ``process_images`` returns, and sizes that are none.

    Args:
        images: (B, 3, H, W), (B, tiles, 3, H, W) or a list of (3, H, W) or (tiles, 3, H, W).
        image_sizes: (width, height) of each image in pixels, or None.
        side: H and W, which the vision tower reads.

    Raises:
        TypeError: for something else than tensors of floating-point numbers.
        ValueError: for another shape, a number of sizes other than of images, or a size without pixels.
    """
    if not isinstance(images, (Tensor, list, tuple)):
        raise TypeError(f"images must be a tensor or a list of tensors, as of process_images, not {_kind(images)}")
    valid, each = ((4, 5), [images]) if isinstance(images, Tensor) else ((3, 4), images)
    for pixels in each:
        if not isinstance(pixels, Tensor):
            raise TypeError(f"images must be tensors, as of process_images, not {_kind(pixels)}")
        if not pixels.is_floating_point():
            raise TypeError(f"images must be floating-point tensors, as of process_images, not {pixels.dtype}")
        if pixels.ndim not in valid or tuple(pixels.shape[-3:]) != (3, side, side):
            form = "(B, 3, H, W) or (B, tiles, 3, H, W)" if isinstance(images, Tensor) else "(tiles, 3, H, W) each"
            raise ValueError(f"images must be {form} with H and W {side}, not {tuple(pixels.shape)}")
    if image_sizes is None:
        return
    if len(image_sizes) != len(images):
        raise ValueError(f"image_sizes has {len(image_sizes)} entries for {len(images)} images")
    for size in image_sizes:
        if not _is_size(size):
            raise ValueError(f"image_sizes must be (width, height) in pixels, 1 or more, for each image, not {size!r}")


def _is_size(size: Any) -> bool:
    try:
        width, height = (side.item() if isinstance(side, Tensor) else side for side in size)
        return width >= 1 and height >= 1
    except (TypeError, ValueError, RuntimeError):
        return False


def _kind(value: Any) -> str:
    return type(value).__name__
