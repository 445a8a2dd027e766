"""The questions of a benchmark asked in the form it has, whichever program asks them."""

import copy
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any

from llava.asking.load import model_name
from llava.asking.prompts import conv_mode_of_plain_model
from llava.eval.ask.dataset import QuestionDataset
from llava.eval.ask.options import first
from llava.eval.ask.program import evaluate, prepare
from llava.eval.tasks.base import Form, Sample
from llava.pruners import Pruner


class UnpaddedDataset(QuestionDataset):
    """Questions whose images are cropped to their centre where the model's other images are padded.

    LLaVA-1.5 saw Q-Bench like this. Images that the model cuts into tiles are cut as ever.
    """

    def __init__(
        self, samples: Sequence[Sample], tokenizer: Any, image_processor: Any, model_config: Any, conv_mode: str
    ):
        if getattr(model_config, "image_aspect_ratio", None) == "pad":
            model_config = copy.copy(model_config)
            model_config.image_aspect_ratio = None
        super().__init__(samples, tokenizer, image_processor, model_config, conv_mode)


def dataset_of(form: Form) -> Callable[..., QuestionDataset]:
    """What makes model input of samples; it takes what ``QuestionDataset`` takes."""
    return UnpaddedDataset if form.crop else QuestionDataset


def ask_questions(form: Form, args: Any, parser: ArgumentParser) -> None:
    """Answer the questions of the file that ``args`` name in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.
        parser: of the program.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare_form(form, args, parser)
    evaluate(args, pruner, read_samples(form, args), question_file(form, args), dataset_of(form))


def prepare_form(form: Form, args: Any, parser: ArgumentParser) -> tuple[Namespace, Pruner | None]:
    """``llava.eval.ask.program.prepare``, with the template that the form has for the model."""
    args, pruner = prepare(args, parser, form.conv_mode)
    if form.plain:
        args.conv_mode = conv_mode_of_plain_model(model_name(args), args.conv_mode)
    return args, pruner


def question_file(form: Form, args: Namespace) -> str:
    """The file of questions that ``args`` name."""
    return getattr(args, form.question_flag.strip("-").replace("-", "_"))


def read_samples(form: Form, args: Namespace) -> list[Sample]:
    """The questions that ``args`` ask for, from ``prepare_form``.

    Raises:
        InputError: they cannot be read, or are fewer than the limit.
    """
    file, options = question_file(form, args), {name: getattr(args, name) for name in form.options}
    return form.samples(first(form.read(file), args.limit, file), args.image_folder, **options)
