"""Measure what ``--budget spectral`` refers to: the effective rank of images that keep the wanted number of tokens.

Every image is shown to the checkpoint once. Prints, for each number of tokens per tile, the --erank_ref with which the
images keep it on average, and with --store writes it beside the checkpoint, where loading finds it.
"""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from llava.asking.batch import generation_options
from llava.asking.load import check_device_flag, load, model_path
from llava.asking.model import Model
from llava.asking.questions import Question
from llava.command import reason
from llava.eval.ask.parsers import calibrate_parser
from llava.eval.results.budgets import quantile
from llava.images import open_image
from llava.records import InputError, local_path, read_jsonl
from llava.selecting.calibration import Spectrum, mean_kept, solve
from llava.selecting.options import LEAST
from llava.selecting.references import KEY, store_erank_ref
from llava.shapes.benchmark import write_benchmark

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SHAPES = {"split": "test", "num_questions": 4000, "seed": 1}
"""What is drawn for the embedded model: pictures like those that it is tested with, and none of these."""


def calibrate(args: Namespace) -> None:
    """Measure as the command line says, print what comes of it and store it if asked to.

    Raises:
        InputError: unusable options, images or checkpoint.
    """
    check_device_flag(args.device)
    path = model_path(args)
    if args.store and not Path(path).is_dir():
        raise InputError(f"--store: {path} is no folder; without --store, the number is printed")
    with TemporaryDirectory() as drawn:
        images = images_of(args, drawn)[: args.num_images]
        spectra = spectra_of(_loaded(path, args), images, args.batch_size)
    for wanted in args.visual_token_num:
        try:
            erank_ref = solve(spectra, wanted)
        except ValueError as error:
            raise InputError(f"--visual_token_num {wanted}: {error}") from error
        entry = {KEY: erank_ref, "images": len(spectra), "mean": round(mean_kept(spectra, erank_ref, wanted), 3)}
        print(told(entry, spectra, wanted))
        if args.store:
            print(f"stored in {store_erank_ref(path, wanted, entry)}")


def told(entry: dict[str, Any], spectra: Sequence[Spectrum], wanted: int) -> str:
    """One line for a person: the reference, and what is kept with it."""
    kept = [image.kept(entry[KEY], wanted) / image.tiles for image in spectra]
    low, median, high = (quantile(kept, share) for share in (0.05, 0.5, 0.95))
    return (
        f"--visual_token_num {wanted} --budget spectral --erank_ref {entry[KEY]:g}: {entry['mean']:.2f} tokens per "
        f"tile on average over {len(kept)} images; 5 % keep {low:g} or fewer, half {median:g}, 5 % {high:g} or more"
    )


def images_of(args: Namespace, drawn: str) -> list[Path]:
    """The images to measure: of a question file, each once; of a folder; or drawn into ``drawn``.

    Raises:
        InputError: there are none, or one that a question names is missing.
    """
    if not (args.image_folder or args.question_file):
        if args.model_path is not None:
            raise InputError("--image-folder or --question-file is missing: images that are like those to be asked")
        write_benchmark(drawn, **SHAPES)
        args = Namespace(image_folder=str(Path(drawn, "images")), question_file=None)
    folder = local_path(args.image_folder or ".")
    if args.question_file:
        lines = read_jsonl(args.question_file, {}, {"image": str})
        images = [folder / name for name in dict.fromkeys(line["image"] for line in lines if "image" in line)]
    else:
        images = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(f"no images: {args.question_file or folder} names or holds none")
    if missing := [path for path in images if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such image, as {args.question_file} names it; --image-folder says where")
    return images


def spectra_of(model: Model, images: Sequence[Path], batch_size: int) -> list[Spectrum]:
    """Show each image to a model that is pruned by ``--budget spectral``; what is kept then is of no matter.

    Raises:
        InputError: one cannot be read.
    """
    found = []
    for start in tqdm(range(0, len(images), batch_size), unit="batch", desc="images", leave=None):
        batch = [
            Question("Describe it.", partial(_opened, path), str(path)) for path in images[start : start + batch_size]
        ]
        try:
            answers = model.answer_items([*map(model.item, batch)], generation_options(max_new_tokens=1))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot measure {images[start]} and those behind it: {error}") from error
        for answer in answers:
            found += [Spectrum(each["erank"], each["tiles"], each["tokens"]) for each in answer.budgets]
    return found


def _opened(path: Path) -> list[Any]:
    return [open_image(path)]


def _loaded(path: str, args: Namespace) -> Model:
    named = {name: getattr(args, name) for name in ("attn_implementation",) if getattr(args, name) is not None}
    measuring = {"pruner": "uniform", "visual_token_num": LEAST, "budget": "spectral", "erank_ref": 1.0}
    try:
        return load(path, device=args.device, dtype=args.dtype, anyres=args.anyres, **named, **measuring)
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {path}: {reason(error)}") from error


def build_parser() -> ArgumentParser:
    """The command line."""
    return calibrate_parser()
