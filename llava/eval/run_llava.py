"""Ask a LLaVA model one question about one image or several.

As a function: ``eval_model(args)`` with any object that has the attributes of the command line it cares about.
"""

import argparse
from typing import Any

from llava.asking.batch import generation_options
from llava.asking.images import image_parser, load_image, load_images
from llava.asking.load import (
    check_options,
    choose_conv_mode,
    choose_pruner,
    load_model,
)
from llava.asking.losses import warn_of_losses
from llava.asking.prompts import check_placeholders, typed
from llava.command import Parser, run_program, with_defaults
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.flags.model import add_generation_args, add_model_args

__all__ = ["eval_model", "image_parser", "load_image", "load_images"]


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
    args.conv_mode = choose_conv_mode(args)
    images = load_images(image_parser(args))
    args.query = typed(args.query).replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER)
    check_placeholders(args.query, len(images))
    names = ("temperature", "top_p", "num_beams", "max_new_tokens")
    generation, model = generation_options(**{name: getattr(args, name) for name in names}), load_model(args, pruner)
    (answer,) = model.answer_items([model.asked(args.query, images)], generation)
    warn_of_losses([answer])
    print(answer)


def build_parser() -> argparse.ArgumentParser:
    """LLaVA's flags, then those of the pruners and the model."""
    parser = Parser(prog="python -m llava.eval.run_llava", description=__doc__, allow_abbrev=False)
    parser.add_argument("--image-file", required=True, help="files or http(s) addresses, separated by --sep")
    parser.add_argument("--query", required=True, help=f"may say where images go with {IMAGE_PLACEHOLDER}")
    parser.add_argument("--conv-mode", help="follows the model's name if not given")
    parser.add_argument("--sep", default=",", help="what separates the files")
    add_generation_args(parser, max_new_tokens=512)
    add_model_args(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
