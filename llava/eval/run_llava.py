"""Ask a LLaVA model one question about one image or several.

As a function: ``eval_model(args)`` with any object that has the attributes of the command line it cares about.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from llava.asking.batch import add_generation_args, generation_options, pad_token_id, stack_images
from llava.asking.images import image_parser, load_image, load_images
from llava.asking.load import (
    LoadedModel,
    add_model_args,
    check_options,
    choose_conv_mode,
    choose_pruner,
    load_model,
)
from llava.asking.prompts import check_placeholders, first_turn, image_token, place_images, typed, user_query
from llava.command import run_program, with_defaults
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER, IMAGE_TOKEN_INDEX
from llava.eval.ask.loop import warn_of_losses
from llava.mm_utils import process_images, tokenizer_image_token

__all__ = ["eval_model", "image_parser", "load_image", "load_images"]


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
