"""Draw where CLIP sees words in images: the relevance that CDPruner and MFPruner read, as a heat map over the image.

    python scripts/visualize_relevance.py --images kitchen.jpg --words blender lime
    python scripts/visualize_relevance.py --image-folder playground/data/samples

Writes ``OUTPUT_FOLDER/IMAGE/WORD.png``, red where the relevance is highest. As in CDPruner's figure, the image is
squeezed to the encoder's square, and every map is scaled to its own range.
"""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from llava.asking.images import images_in, load_image
from llava.asking.load import check_device_flag
from llava.asking.prompts import typed
from llava.command import reason, run_program
from llava.eval.tasks.tables import import_extra
from llava.mm_utils import to_rgb
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.outputs import nothing_left
from llava.records import InputError, check_writable, local_path

logger = logging.getLogger("llava.scripts.visualize_relevance")

SAMPLES = {  # the COCO images of CDPruner's figure by their number, and the words it looks for in each
    17708: ["bird", "boat", "rock", "lake"],
    217397: ["phone", "plate", "bottle", "glass"],
    480122: ["banana", "bowl", "table", "kettle"],
    536073: ["blender", "tequila", "lime", "knife"],
}
SELECT_LAYER = -2  # the block whose output LLaVA reads
LEAST_PIXELS = 336  # side of the pictures; a smaller encoder's are enlarged


def words_of(path: Path, words: Sequence[str] | None) -> Sequence[str]:
    """The words to look for in an image: those asked for, or those of the figure for its samples.

    Raises:
        InputError: no words asked for, and the image is none of the samples.
    """
    number = re.search(r"\d+$", path.stem)
    sample = SAMPLES.get(int(number[0])) if number else None
    if not words and sample is None:
        raise InputError(f"say with --words what to look for in {path}; only CDPruner's four samples have words here")
    return words or sample


def find_images(args: argparse.Namespace) -> list[Path]:
    """The images asked for: ``--images``, or all those in ``--image-folder``.

    Raises:
        InputError: there are none.
    """
    if args.images:
        return [local_path(image) for image in args.images]
    folder = local_path(args.image_folder)
    if not (found := images_in(folder)):
        raise InputError(f"--image-folder {folder}: no images there; --images takes single files")
    return found


def load_tower(model_path: str, device: str) -> CLIPVisionTower:
    """A CLIP checkpoint with both its sides.

    Raises:
        InputError: there is none of that name.
    """
    try:
        tower = CLIPVisionTower(model_path, SimpleNamespace(mm_vision_select_layer=SELECT_LAYER), delay_load=True)
        tower.load_model(text_chunking="release")
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"--model-path {model_path}: cannot load a CLIP checkpoint: {reason(error)}") from error
    return tower.to(device)


def check_template(template: str) -> None:
    """Raise InputError for a template that does not take one word."""
    try:
        takes = template.format("word") != template.format("")
    except (IndexError, KeyError, ValueError) as error:
        raise InputError(f"--template {template!r}: one {{}} stands for the word") from error
    if not takes:
        raise InputError(f"--template {template!r}: {{}} is missing, which stands for the word")


def relevance_maps(tower: CLIPVisionTower, image: Image.Image, texts: Sequence[str]) -> Tensor:
    """How relevant every patch of an image is to each text: float32 (T, side, side), higher is more relevant."""
    size = tower.config.image_size
    pixels = tower.image_processor.preprocess(to_rgb(image).resize((size, size)), return_tensors="pt")["pixel_values"]
    _, cues = tower.cues(pixels.repeat(len(texts), 1, 1, 1), frozenset({"relevance"}), texts)
    side = tower.num_patches_per_side
    return cues["relevance"].cpu().view(len(texts), side, side)


def heat_map(image: Image.Image, relevance: Tensor, size: int) -> Image.Image:
    """Half the image, half the colours of its relevance (side, side), ``size`` pixels along each edge."""
    low, high = relevance.aminmax()
    scaled = ((relevance - low) / (high - low).clamp_min(1e-12)).numpy()
    colours = Image.fromarray(np.uint8(255 * import_extra("matplotlib").colormaps["jet"](scaled)[..., :3]))
    return Image.blend(to_rgb(image).resize((size, size)), colours.resize((size, size), Image.Resampling.NEAREST), 0.5)


def visualize(args: argparse.Namespace) -> None:
    """Draw every image with every word.

    Raises:
        InputError: nothing to draw with or from, an unreadable image or an unusable device, checkpoint or folder.
    """
    check_device_flag(args.device)
    check_template(args.template)
    import_extra("matplotlib")
    images = {path: words_of(path, args.words) for path in find_images(args)}
    folder = local_path(args.output_folder)
    tower = load_tower(args.model_path, args.device)
    size = tower.config.image_size * -(-LEAST_PIXELS // tower.config.image_size)
    for path, words in tqdm(images.items(), unit="image"):
        image = load_image(str(path))
        maps = relevance_maps(tower, image, [typed(args.template.format(word)) for word in words])
        for word, relevance in zip(words, maps, strict=True):
            output = folder / path.stem / f"{word.replace('/', '-')}.png"
            with nothing_left(output):
                heat_map(image, relevance, size).save(check_writable(output))
    logger.info("%d images in %s", len(images), folder)


def build_parser() -> argparse.ArgumentParser:
    """The flags of CDPruner's script, then which images and words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", default="openai/clip-vit-large-patch14-336", help="CLIP, a folder or a hub id")
    parser.add_argument("--image-folder", default="playground/data/samples", help="all its images are drawn")
    parser.add_argument("--output-folder", default="playground/data/visualize", help="of the maps")
    parser.add_argument("--images", nargs="+", metavar="IMAGE", help="these instead of the folder's")
    parser.add_argument("--words", nargs="+", metavar="WORD", help="looked for in every image")
    parser.add_argument("--template", default="Is there a {} in the image?", help="makes a text of a word")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where CLIP runs")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), visualize)
