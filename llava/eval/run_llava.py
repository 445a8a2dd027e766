"""Ask a LLaVA model one question about one image or several.

As a function: ``eval_model(args)`` with any object that has the attributes of the command line it cares about.
"""

import argparse
import logging
import os
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

import torch
from PIL import Image

from llava.asking.losses import without_placeholders
from llava.asking.prompts import check_conv_mode, first_turn, image_token, typed
from llava.asking.queries import user_query
from llava.command import run_program
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER, IMAGE_TOKEN_INDEX
from llava.conversation import conv_mode_for
from llava.eval.ask.dataset import stack_images
from llava.eval.ask.loop import generation_options, pad_token_id, warn_of_losses
from llava.eval.ask.options import (
    LoadedModel,
    add_generation_args,
    add_model_args,
    check_options,
    choose_pruner,
    default_conv_mode,
    load_model,
    model_name,
    with_defaults,
)
from llava.images import open_image
from llava.mm_utils import process_images, tokenizer_image_token
from llava.records import InputError

logger = logging.getLogger(__name__)

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


def check_placeholders(query: str, num_images: int) -> None:
    """Raise ``InputError`` when a query has placeholders, but not as many as there are images."""
    placeholders = query.count(IMAGE_PLACEHOLDER)
    if placeholders not in (0, num_images):
        raise InputError(f"--query has {placeholders} {IMAGE_PLACEHOLDER} but --image-file names {num_images} images")


def place_images(query: str, num_images: int, token: str) -> str:
    """The user's turn: the image token at every placeholder or, where there are not as many, per image in front."""
    query = query.replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER)
    if query.count(IMAGE_PLACEHOLDER) == num_images:
        return query.replace(IMAGE_PLACEHOLDER, token)
    return f"{token}\n" * num_images + without_placeholders(query, IMAGE_PLACEHOLDER)[0]


def choose_conv_mode(args: argparse.Namespace) -> str:
    """The template the checkpoint's name implies; another one the caller asks for wins, with a warning."""
    implied = default_conv_mode(args, conv_mode_for(model_name(args)))
    if args.conv_mode and check_conv_mode(args.conv_mode) != implied:
        logger.warning("the model's name implies --conv-mode %s; using %s as asked", implied, args.conv_mode)
    return args.conv_mode or implied


@torch.inference_mode()
def ask(loaded: LoadedModel, query: str, images: Sequence[Image.Image], conv_mode: str, **generation: Any) -> str:
    """The model's answer to ``query`` about ``images``.

    Args:
        generation: keywords of ``generate``, from ``generation_options``.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    prompt = first_turn(place_images(query, len(images), image_token(model.config)), conv_mode)
    input_ids = tokenizer_image_token(prompt, tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt").unsqueeze(0)
    pixels = process_images(images, loaded.image_processor, model.config)
    output_ids = model.generate(
        input_ids.to(model.device),
        images=stack_images([image.to(model.device, model.dtype) for image in pixels]),
        image_sizes=[image.size for image in images],
        texts=[user_query(query)],
        pad_token_id=pad_token_id(tokenizer),
        **generation,
    )
    warn_of_losses(model, tokenizer, output_ids, [user_query(query)], generation)
    return tokenizer.batch_decode(output_ids, skip_special_tokens=True)[0].strip()


def eval_model(args: Any) -> None:
    """Print the answer to ``args.query`` about the images of ``args.image_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unreadable images, an unknown template or a wrong number of placeholders, before the model loads.
    """
    args = with_defaults(args, build_parser(), required=("--image-file", "--query"))
    pruner = choose_pruner(args)
    check_options(args, pruner)
    conv_mode = choose_conv_mode(args)
    images = load_images(image_parser(args))
    args.query = typed(args.query).replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER)
    check_placeholders(args.query, len(images))
    generation = generation_options(args.temperature, args.top_p, args.num_beams, args.max_new_tokens)
    print(ask(load_model(args, pruner), args.query, images, conv_mode, **generation))


def build_parser() -> argparse.ArgumentParser:
    """LLaVA's flags, then those of the pruners and the model."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.run_llava", description=__doc__, allow_abbrev=False)
    parser.add_argument("--image-file", required=True, help="files or http(s) addresses, separated by --sep")
    parser.add_argument("--query", required=True, help=f"may say where images go with {IMAGE_PLACEHOLDER}")
    parser.add_argument("--conv-mode", help="follows the model's name if not given")
    parser.add_argument("--sep", default=",")
    add_generation_args(parser, max_new_tokens=512)
    add_model_args(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
