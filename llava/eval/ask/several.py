"""The questions of one file asked of one model under several prunings: loaded once, each image read once."""

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from llava.asking.batch import generation_options
from llava.asking.load import load_model
from llava.asking.model import Model
from llava.asking.questions import Answer
from llava.command import reason
from llava.eval.ask.answers import AnswersFile, WriteAnswer
from llava.eval.ask.dataset import QuestionDataset, QuestionError, Sample, batches
from llava.eval.ask.locks import check_locks
from llava.eval.ask.loop import Run, answered_or_refused, record, refusal
from llava.eval.ask.options import describe_pruner
from llava.eval.ask.program import answers_file, described, identified
from llava.pruners import Pruner, name_of
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.records import InputError
from llava.selecting.options import NATIVE, PruningOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configuration:
    """One way to prune, and where its answers go; of several, all but these is the same.

    Args:
        args, pruner: as ``llava.eval.ask.program.prepare`` returns them.
        answers: what is on disk.
    """

    args: Namespace
    pruner: Pruner | None
    answers: AnswersFile

    @classmethod
    def of(cls, args: Namespace, pruner: Pruner | None, samples: Sequence[Sample], file: str) -> "Configuration":
        """The configuration of a program that asks ``samples``, all questions of ``file``."""
        return cls(args, pruner, answers_file(args, pruner, samples, file))

    @property
    def options(self) -> PruningOptions:
        """How the model is set."""
        return PruningOptions.from_args(self.args, NATIVE)


@dataclass(frozen=True)
class Waiting:
    """A configuration that lacks answers.

    Args:
        missing: the indices of their questions.
        write: takes such an index and the answer's line.
    """

    options: PruningOptions
    plan: Run
    missing: frozenset[int]
    write: WriteAnswer


def ask_together(
    configurations: Sequence[Configuration],
    samples: Sequence[Sample],
    make_dataset: Callable[..., QuestionDataset] = QuestionDataset,
) -> None:
    """Answer under each configuration what its file does not answer yet, and finish the files.

    Answers, files and records are those of a run for each; only how long answers took is not recorded, as they share
    what is read of an image.

    Args:
        samples: all questions.
        make_dataset: takes what ``QuestionDataset`` takes.

    Raises:
        InputError: as ``llava.eval.ask.program.evaluate``; several ways to cut texts.
    """
    check_locks()
    _check_text_side(configurations)
    with ExitStack() as opened:
        missing = [opened.enter_context(each.answers.claim(each.args.overwrite)) for each in configurations]
        lacking = [(each, indices) for each, indices in zip(configurations, missing, strict=True) if indices]
        present = len(samples) * len(configurations) - sum(map(len, missing))
        if present:
            logger.info("continuing: %d of %d answers are there", present, len(samples) * len(configurations))
        if lacking:
            with ExitStack() as files:
                _ask(lacking, samples, make_dataset, files)
        for each in configurations:
            each.answers.finish()


def _check_text_side(configurations: Sequence[Configuration]) -> None:
    every = [each.options for each in configurations]
    if len({options.text_chunking for options in every if options.needs & CLIP_TEXT_CUES}) > 1:
        raise InputError("text_chunking is CLIP's text side's, which a sweep has one of: give all pruners the same")


def _ask(
    lacking: Sequence[tuple[Configuration, Sequence[int]]],
    samples: Sequence[Sample],
    make_dataset: Callable[..., QuestionDataset],
    files: ExitStack,
) -> None:
    """Load the model and let it answer what is lacking; ``files`` closes what is written."""
    # Who reads CLIP's text side has it loaded with the tower, in its dtype, as in a run of its own.
    first = next((each for each, _ in lacking if each.options.needs & CLIP_TEXT_CUES), lacking[0][0])
    loaded = load_model(first.args, first.pruner)
    asked = sorted(set().union(*(indices for _, indices in lacking)))
    places = (loaded.tokenizer, loaded.image_processor, loaded.model.config, first.args.conv_mode)
    dataset = make_dataset([samples[index] for index in asked], *places)
    waiting = []
    for each, indices in lacking:
        in_parts = each.args.batch_size > 1 or bool(each.answers.parts())
        write = identified(files.enter_context(each.answers.writer(0 if in_parts else None)), each.answers)
        _set(loaded, each.options)
        waiting.append(Waiting(each.options, _plan(each, loaded), frozenset(indices), write))
    with tqdm(total=sum(len(each.missing) for each in waiting), unit="answer", leave=None) as progress:
        for each, index, line in answer_together(dataset, loaded, waiting, asked):
            each.write(index, line)
            progress.update()


def _set(loaded: Model, options: PruningOptions) -> None:
    """Let the model prune in a way; raises InputError where it cannot."""
    try:
        loaded.model.pruning = options
    except (OSError, ValueError) as error:
        raise InputError(f"{loaded.name} cannot be pruned by {name_of(options.pruner)}: {reason(error)}") from error


def _plan(each: Configuration, loaded: Model) -> Run:
    args = each.args
    return Run(
        loaded.name,
        describe_pruner(each.pruner) | {"run": described(args, loaded.model)},
        generation_options(args.temperature, args.top_p, args.num_beams, args.max_new_tokens, args.static_cache),
        args.batch_size,
        args.num_workers,
        args.on_error,
    )


def answer_together(
    dataset: QuestionDataset, model: Model, waiting: Sequence[Waiting], asked: Sequence[int]
) -> Iterator[tuple[Waiting, int, dict[str, Any]]]:
    """Yield, batch by batch and in each of them configuration by configuration, the index and line of every answer.

    Args:
        asked: of each sample of the dataset, the index by which ``Waiting`` knows it.

    Raises:
        InputError: a question that cannot be asked, unless the plan is to skip it.
    """
    plan = waiting[0].plan
    for batch in batches(dataset, plan.batch_size, plan.num_workers):
        with model.model.images_read_once([each.options for each in waiting]):
            for each in waiting:
                wanted = [(place, read) for place, read in batch if asked[place] in each.missing]
                if wanted:
                    model.model.pruning = each.options
                    for place, line in _answer(dataset, model, each.plan, wanted):
                        yield each, asked[place], line


def _answer(
    dataset: QuestionDataset, model: Model, plan: Run, batch: Sequence[tuple[int, Any]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines that answer a batch, by the place of each question in the dataset."""

    def respond(part: Sequence[tuple[int, Any]]) -> list[Answer]:
        return model.answer_items([dataset.item(place, read, model) for place, read in part], plan.generation)

    readable = [(place, read) for place, read in batch if not isinstance(read, QuestionError)]
    answered = answered_or_refused(respond, readable, [dataset.samples[place].question_id for place, _ in readable])
    found = {place: (read, answer) for (place, read), answer in zip(readable, answered, strict=True)}
    for place, read in batch:
        read, result = found.get(place, (None, read))
        if isinstance(result, QuestionError) and plan.on_error == "stop":
            raise refusal(result) from result
        metadata = dataset.measured(read, result) if isinstance(result, Answer) else {}
        yield place, record(dataset.samples[place], result, plan, metadata)
