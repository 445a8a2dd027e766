"""Draw how well the kept visual tokens cover all of an image's, for several pruners, as in figure 3 of DivPrune.

    python scripts/visualize_diversity.py IMAGES... --pruner random cls_topk divprune --visual_token_num 64
    python scripts/visualize_diversity.py

Above, for the first image, every token on the two main axes of the image's tokens (PCA of unit vectors), the kept ones
in colour. Below, over all images, the least cosine distance between two kept tokens, which DivPrune maximises: the
further to the right, the less the kept tokens repeat each other. Of a LLaVA-NeXT model the base tile is shown. Without
an image, scenes of the embedded model's benchmark are drawn.

DivPrune: https://arxiv.org/abs/2503.02175.
"""

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from llava.asking.images import images_in, load_image
from llava.asking.llava import LlavaModel
from llava.asking.load import load_model
from llava.asking.prompts import typed, user_query
from llava.command import run_program
from llava.eval.pictures.figures import STYLES, check_picture, new_figure
from llava.eval.pictures.lineup import add_lineup_args, complete, lineup
from llava.eval.tasks.tables import import_extra
from llava.outputs import nothing_left
from llava.pruners import Pruner, VisualCues
from llava.pruners.search.products import unit_vectors
from llava.records import InputError, local_path
from llava.shapes.benchmark import sample_scenes
from llava.shapes.scenes import render

logger = logging.getLogger("llava.scripts.visualize_diversity")

BINS = 30
USUAL, SHARES = ("random", "cls_topk", "divprune"), (0.25,)
"""What is compared where no pruner is named, and the share of the tokens it keeps."""
SAMPLES = 24
"""How many scenes are drawn without an image."""


def find_images(places: Sequence[str]) -> list[str]:
    """Files as they are named, and every image in a folder that is named.

    Raises:
        InputError: a folder without images.
    """
    found = []
    for place in places:
        path = local_path(place)
        inside = [str(file) for file in images_in(path)]
        if path.is_dir() and not inside:
            raise InputError(f"{path}: no images in this folder")
        found += inside or [place]
    return found


@torch.inference_mode()
def cues_of(loaded: LlavaModel, image: Image.Image, question: str | None, needs: frozenset[str]) -> VisualCues:
    """All cues in ``needs`` of an image's only tile, or its base tile."""
    model = loaded.model
    pixels = loaded.preparer.pixels(image)
    base = pixels.view(-1, *pixels.shape[-3:])[:1].to(model.device, model.dtype)  # (1, 3, H, W)
    features, cues = model.get_vision_tower().cues(base, needs, [question])
    return VisualCues(features=features, embeds=model.encode_images(base), **cues)


def least_distance(tokens: Tensor) -> float:
    """The least cosine distance between two of the tokens (K, D)."""
    unit = unit_vectors(tokens.float())
    cosine = (unit @ unit.T).fill_diagonal_(-1)
    return float(1 - cosine.max())


def main_axes(tokens: Tensor) -> Tensor:
    """Coordinates of tokens (N, D) on the two axes along which their unit vectors differ most: (N, 2)."""
    unit = unit_vectors(tokens.float())
    centred = unit - unit.mean(dim=0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T


def draw(points: Tensor, kept: Mapping[str, Tensor], distances: Mapping[str, Sequence[float]], output: Path) -> None:
    """Draw the figure: one map of tokens for each pruner above, their histograms below.

    Args:
        points: (N, 2) of the first image's tokens.
        kept: by pruner, the indices of the first image's kept tokens.
        distances: by pruner, the least distance in every image.
    """
    figure = new_figure((3 * len(kept), 6))
    maps, histogram = figure.subfigures(2, 1)
    axes_of_maps = maps.subplots(1, len(kept), squeeze=False, sharex=True, sharey=True)[0]
    colours = {name: STYLES.get(name, {}).get("color", f"C{i}") for i, name in enumerate(kept)}
    for axes, (name, keep) in zip(axes_of_maps, kept.items(), strict=True):
        axes.scatter(*points.T, s=6, color="#CCCCCC")
        axes.scatter(*points[keep].T, s=12, color=colours[name])
        axes.set_title(f"{name}, least distance {distances[name][0]:.3f}", fontsize=9)
        axes.set(xticks=[], yticks=[])
    axes = histogram.subplots()
    bins = np.histogram_bin_edges([value for values in distances.values() for value in values], BINS)
    for name, values in distances.items():
        axes.hist(values, bins, histtype="step", linewidth=2, label=name, color=colours[name])
    axes.set(xlabel="least cosine distance between two kept tokens", ylabel="images")
    axes.legend()
    figure.savefig(output, dpi=130)


def measure(
    loaded: LlavaModel, pruners: Mapping[str, Pruner], images: Iterable[Image.Image], question: str | None
) -> tuple[Tensor, dict[str, Tensor], dict[str, list[float]]]:
    """What ``draw`` shows of the images: points and kept tokens of the first, and the distances in all."""
    needs = frozenset().union(*(pruner.needs for pruner in pruners.values()))
    for pruner in pruners.values():
        loaded.model.set_pruner(pruner)  # loads CLIP's text side where it is needed
    points, kept, distances = None, {}, {name: [] for name in pruners}
    for image in images:
        cues = cues_of(loaded, image, question, needs)
        tokens = cues.embeds[0].cpu()
        keep = {name: pruner(cues)[0].cpu() for name, pruner in pruners.items()}
        if points is None:
            points, kept = main_axes(tokens), keep
        for name, indices in keep.items():
            distances[name].append(least_distance(tokens[indices]))
    return points, kept, distances


def choose(args: argparse.Namespace) -> dict[str, Pruner]:
    """One pruner for each name.

    Raises:
        InputError: several budgets, fewer than two tokens, or ``none``.
    """
    complete(args, USUAL, SHARES)
    chosen = lineup(args)
    if "none" in chosen:
        raise InputError("--pruner none keeps every token; leave it out")
    if len(args.visual_token_num + args.keep_ratio) != 1 or args.visual_token_num in ([0], [1]):
        raise InputError("give one budget of two tokens or more")
    return {name: pruner for name, (pruner,) in chosen.items()}


def visualize(args: argparse.Namespace) -> None:
    """Draw the figure ``args.output``.

    Raises:
        InputError: no matplotlib, an unusable option, image or output path.
    """
    import_extra("matplotlib")
    pruners, places = choose(args), find_images(args.images)
    question = None if args.question is None else user_query(typed(args.question))
    for place in places:
        load_image(place)  # one that cannot be read is told before the model loads
    shown = map(load_image, places) if places else map(Image.fromarray, map(render, sample_scenes(SAMPLES)))
    with nothing_left(args.output):
        output = check_picture(args.output)
        images = tqdm(shown, total=len(places) or SAMPLES, unit="image")
        draw(*measure(load_model(args, None), pruners, images, question), output)
    logger.info("%s", output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files, http(s) addresses or folders of images")
    parser.add_argument("--question", help="for the pruners that read relevance")
    parser.add_argument("--output", default="diversity.png", help="the picture to write (default: diversity.png)")
    add_lineup_args(parser, USUAL, SHARES)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), visualize)
