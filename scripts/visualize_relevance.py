"""Draw where CLIP sees words in images: the relevance that CDPruner and MFPruner read, as a heat map over the image.

    python scripts/visualize_relevance.py --images kitchen.jpg --words blender lime
    python scripts/visualize_relevance.py --image-folder playground/data/samples
    python scripts/visualize_relevance.py

Writes ``OUTPUT_FOLDER/IMAGE/WORD.png``, red where the relevance is highest. As in CDPruner's figure, the image is
squeezed to the encoder's square, and every map is scaled to its own range. Where no image is named and the folder of
CDPruner's samples is not there, scenes of the embedded model's benchmark are drawn, and what they show is looked for,
unless told otherwise by the embedded model's CLIP.
"""

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
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
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import sample_scenes
from llava.shapes.scenes import Scene, render

logger = logging.getLogger("llava.scripts.visualize_relevance")

SAMPLES = {  # the COCO images of CDPruner's figure by their number, and the words it looks for in each
    17708: ["bird", "boat", "rock", "lake"],
    217397: ["phone", "plate", "bottle", "glass"],
    480122: ["banana", "bowl", "table", "kettle"],
    536073: ["blender", "tequila", "lime", "knife"],
}
SAMPLE_FOLDER = "playground/data/samples"
CLIP, EMBEDDED_CLIP = "openai/clip-vit-large-patch14-336", str(Path(checkpoint_path()).with_name("clip-shapes"))
SCENES = 4
"""How many scenes are drawn where there is no image."""
SELECT_LAYER = -2  # the block whose output LLaVA reads
LEAST_PIXELS = 336  # side of the pictures; a smaller encoder's are enlarged
Panel = tuple[str, Sequence[str], Callable[[], Image.Image]]


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
    """The images asked for: ``--images``, or all those in ``--image-folder``, or the samples, if there are any.

    Raises:
        InputError: the folder that is named has none.
    """
    if args.images:
        return [local_path(image) for image in args.images]
    folder = local_path(args.image_folder or SAMPLE_FOLDER)
    found = images_in(folder)
    if args.image_folder and not found:
        raise InputError(f"--image-folder {folder}: no images there; --images takes single files")
    return found


def words_in(scene: Scene) -> list[str]:
    """What a scene shows, each once."""
    return list(dict.fromkeys(f"{item.color} {item.shape}" for item in scene.objects))


def panels(found: Sequence[Path], words: Sequence[str] | None) -> list[Panel]:
    """What is drawn of the images, or of scenes where there are none: folder, words, and how to come by the picture.

    Raises:
        InputError: as ``words_of``.
    """
    if found:
        return [(path.stem, words_of(path, words), partial(load_image, str(path))) for path in found]
    return [
        (f"scene {number}", words or words_in(scene), lambda scene=scene: Image.fromarray(render(scene)))
        for number, scene in enumerate(sample_scenes(SCENES))
    ]


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
    found = find_images(args)
    drawn, folder = panels(found, args.words), local_path(args.output_folder)
    usual = CLIP if found else EMBEDDED_CLIP
    tower = load_tower(usual if args.model_path is None else args.model_path, args.device)
    size = tower.config.image_size * -(-LEAST_PIXELS // tower.config.image_size)
    for name, words, read in tqdm(drawn, unit="image"):
        image = read()
        maps = relevance_maps(tower, image, [typed(args.template.format(word)) for word in words])
        for word, relevance in zip(words, maps, strict=True):
            output = folder / name / f"{word.replace('/', '-')}.png"
            with nothing_left(output):
                heat_map(image, relevance, size).save(check_writable(output))
    logger.info("%d images in %s", len(drawn), folder)


def build_parser() -> argparse.ArgumentParser:
    """The flags of CDPruner's script, then which images and words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    clip = f"CLIP, a folder or a hub id (default: {CLIP}; for scenes the embedded one)"
    parser.add_argument("--model-path", help=clip)
    images = f"all its images are drawn (default: {SAMPLE_FOLDER}; scenes where that is not there)"
    parser.add_argument("--image-folder", help=images)
    parser.add_argument("--output-folder", default="playground/data/visualize", help="of the maps")
    parser.add_argument("--images", nargs="+", metavar="IMAGE", help="these instead of the folder's")
    parser.add_argument("--words", nargs="+", metavar="WORD", help="looked for in every image")
    parser.add_argument("--template", default="Is there a {} in the image?", help="makes a text of a word")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where CLIP runs")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), visualize)
