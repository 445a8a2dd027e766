"""Draw which visual tokens of an image each pruner keeps for a question, and what the model answers then.

    python scripts/visualize_selection.py IMAGE QUESTION --pruner none cdpruner divprune --visual_token_num 32 64
    python scripts/visualize_selection.py

One row for each pruner, one column for each budget; kept patches are in colour. Of a LLaVA-NeXT model both views are
shown, the whole image as one tile and the grid of tiles. Without an image, a scene of the embedded model's benchmark
is drawn and asked about.
"""

import argparse
import logging
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from llava.asking.images import load_image
from llava.asking.llava import LlavaModel
from llava.asking.load import choose_conv_mode, load_model
from llava.asking.losses import warn_of_losses
from llava.asking.prompts import typed
from llava.command import at_least, check_values, run_program
from llava.eval.pictures.figures import check_picture, draw_panels
from llava.eval.pictures.lineup import add_lineup_args, complete, lineup
from llava.eval.pictures.overlays import pictures
from llava.eval.tasks.tables import import_extra
from llava.outputs import nothing_left
from llava.pruners import Pruner
from llava.records import InputError
from llava.shapes.benchmark import sample_scenes
from llava.shapes.questions import SHORT_ANSWER_PROMPT
from llava.shapes.scenes import render

logger = logging.getLogger("llava.scripts.visualize_selection")

GAP = 24  # pixels between the views of one image
CAPTION_WIDTH = 34  # characters
USUAL, SHARES = ("none", "random", "cls_topk", "divprune", "cdpruner"), (0.25, 0.0625)
"""What is compared where no pruner is named, and the shares of the tokens it keeps."""
SAMPLE, SAMPLE_QUESTION = 1, "What color is the ring?"
"""The scene that is drawn without an image, by its number, and what it is asked."""


def beside(views: list[np.ndarray]) -> np.ndarray:
    """Put pictures (H, W, 3) side by side on white, all as high as the highest."""
    height = max(len(view) for view in views)
    scaled = [Image.fromarray(view).resize((view.shape[1] * height // len(view), height)) for view in views]
    strips = [strip for view in scaled for strip in (np.asarray(view), np.full((height, GAP, 3), 255, dtype=np.uint8))]
    return np.concatenate(strips[:-1], axis=1)


def panel(loaded: LlavaModel, name: str, image: Image.Image, args: argparse.Namespace) -> tuple[str, np.ndarray]:
    """Ask the question with the pruner in place; returns caption and picture."""
    answer = loaded.answer(image, args.question, max_new_tokens=args.max_new_tokens)
    warn_of_losses([answer])
    caption = f"{name}, {answer.visual_tokens} tokens\n{textwrap.fill(answer.text, CAPTION_WIDTH)}"
    return caption, beside(pictures(loaded.model, loaded.image_processor, image))


def visualize(args: argparse.Namespace) -> None:
    """Draw the picture ``args.output``.

    Raises:
        InputError: no matplotlib, an unusable option, image or output path, before the model loads.
    """
    import_extra("matplotlib")
    check_values(args, build_parser())
    complete(args, USUAL, SHARES)
    pruners, image = lineup(args), asked_about(args)
    args.conv_mode = choose_conv_mode(args)
    with nothing_left(args.output):
        draw(args, pruners, image, check_picture(args.output))
    logger.info("%s", args.output)


def asked_about(args: argparse.Namespace) -> Image.Image:
    """The image that is named, or else a scene; puts the question that is asked of it in ``args``.

    Raises:
        InputError: an image that cannot be read, or that comes without a question.
    """
    if args.image is None:
        args.question = f"{SAMPLE_QUESTION}\n{SHORT_ANSWER_PROMPT}"
        return Image.fromarray(render(sample_scenes(SAMPLE + 1)[SAMPLE]))
    if args.question is None:
        raise InputError(f"QUESTION is missing: say what to ask about {args.image}")
    args.question = typed(args.question)
    return load_image(args.image)


def draw(args: argparse.Namespace, pruners: dict[str, list[Pruner | None]], image: Image.Image, output: Path) -> None:
    """Load the model, let every pruner choose at every budget, and draw a row of panels for each."""
    loaded = load_model(args, None)
    rows, total = [], sum(map(len, pruners.values()))
    with tqdm(total=total, unit="panel") as progress:
        for name, of_budgets in pruners.items():
            rows.append([])
            for pruner in of_budgets:
                loaded.model.set_pruner(pruner)
                rows[-1].append(panel(loaded, name, image, args))
                progress.update()
    draw_panels(rows, output, textwrap.fill(args.question.partition("\n")[0], 2 * CAPTION_WIDTH))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a file or an http(s) address")
    parser.add_argument("question", nargs="?", metavar="QUESTION", help="what each of the pruned models is asked")
    parser.add_argument("--output", default="selection.png", help="the picture to write (default: selection.png)")
    parser.add_argument("--conv-mode", help="follows the model's name if not given")
    parser.add_argument("--max_new_tokens", type=at_least(1), default=32, help="tokens that an answer has at most")
    add_lineup_args(parser, USUAL, SHARES)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), visualize)
