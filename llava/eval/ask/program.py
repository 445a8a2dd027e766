"""What every program that asks the questions of a benchmark does, once it knows how to read its question file."""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from llava.asking.batch import generation_options
from llava.asking.load import check_options, choose_pruner, default_conv_mode, load_model
from llava.asking.losses import count_losses, told
from llava.asking.model import Model
from llava.asking.processes import Processes, join
from llava.asking.prompts import check_conv_mode
from llava.command import with_defaults
from llava.eval.ask import identity
from llava.eval.ask.answers import PLACES, AnswersFile, WriteAnswer
from llava.eval.ask.dataset import QuestionDataset, Sample
from llava.eval.ask.engine import begin_engine, check_engine
from llava.eval.ask.locks import check_locks
from llava.eval.ask.loop import Run, run
from llava.eval.ask.options import describe_pruner, describe_run, describe_settings
from llava.eval.results.budgets import Kept
from llava.eval.results.latency import save_latency
from llava.eval.results.metadata import read_metadata
from llava.eval.results.profile import profile_of
from llava.pruners import Pruner
from llava.records import InputError, get_chunk, local_path, read_jsonl
from llava.selecting.options import MOVING

logger = logging.getLogger(__name__)

QUERIES = "sha256 of the queries"
"""The setting that tells programs apart which ask the same but let pruners compare other texts with the images."""
Begin = Callable[[Namespace, Pruner | None, Sequence[Sample], Processes], tuple[Model, QuestionDataset, dict[str, Any]]]
"""Loads a model; returns it, the samples as it reads them, and what decides the answers besides the pruner."""


def prepare(args: Any, parser: ArgumentParser, conv_mode: str = "llava_v1") -> tuple[Namespace, Pruner | None]:
    """Complete and check the options that all programs have, before anything is read.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.
        conv_mode: the template of the program, unless another one is asked for or the model is the embedded one.

    Raises:
        InputError: an option that does not fit, or an image folder that is not there.
    """
    args = with_defaults(args, parser)
    pruner = choose_pruner(args)
    check_options(args, pruner)
    check_engine(args)
    args.conv_mode = check_conv_mode(args.conv_mode or default_conv_mode(args, conv_mode), "--conv-mode")
    if args.image_folder and not local_path(args.image_folder).is_dir():
        raise InputError(f"--image-folder {args.image_folder}: no such folder")
    return args, pruner


def evaluate(
    args: Namespace,
    pruner: Pruner | None,
    samples: Sequence[Sample],
    question_file: str | Path,
    make_dataset: Callable[..., QuestionDataset] = QuestionDataset,
    begin: Begin | None = None,
) -> None:
    """Answer the questions of this chunk that ``args.answers_file`` does not answer yet, alone or with other processes.

    Args:
        args, pruner: from ``prepare``.
        samples: all questions of the file.
        make_dataset: takes what ``QuestionDataset`` takes.
        begin: loads the model that answers; one in LLaVA's own format if None.

    Raises:
        InputError: an unusable chunk, answers file or checkpoint, before anything is asked; an unreadable image or a
            full disk, with the answers so far on disk.
    """
    check_locks()
    answers = answers_file(args, pruner, samples, question_file)
    samples = get_chunk(samples, args.num_chunks, args.chunk_idx)
    processes = join(args.device)
    args.device = processes.device

    def claim() -> tuple[list[int], bool]:
        missing = claimed.enter_context(answers.claim(args.overwrite))
        return missing, processes.count > 1 or args.batch_size > 1 or bool(answers.parts())

    with ExitStack() as claimed:
        missing, in_parts = processes.by_main(claim)
        share = missing[processes.rank :: processes.count]
        if processes.is_main and missing and len(missing) < len(samples):
            present = len(samples) - len(missing)
            logger.info("%s: continuing, %d of %d answers are there", answers.path, present, len(samples))
        if share:
            with answers.writer(processes.rank if in_parts else None) as write:
                usual = begin_engine if getattr(args, "engine", None) else _begin
                begin, asked = begin or partial(usual, make_dataset), {index: samples[index] for index in share}
                _ask(begin, args, pruner, asked, identified(write, answers), processes)
        processes.wait()
        processes.by_main(answers.finish)
    if processes.is_main:
        _report(args, answers.path, len(samples))


def answers_file(
    args: Namespace, pruner: Pruner | None, samples: Sequence[Sample], question_file: str | Path
) -> AnswersFile:
    """What is on disk of the answers to this chunk of ``samples``, all questions of the file.

    Raises:
        InputError: the question file or a file of the checkpoint cannot be read, or there is no such chunk.
    """
    settings = describe_settings(args, pruner, question_file) | {QUERIES: identity.of_texts(s.query for s in samples)}
    files = identity.of_run(**{part: getattr(args, place, None) for place, part in PLACES.items()})
    samples = get_chunk(samples, args.num_chunks, args.chunk_idx)
    expected = [{k: v for k, v in sample.line().items() if k != sample.answer_key} for sample in samples]
    media = [sample.image if isinstance(sample.image, Path) else None for sample in samples]
    return AnswersFile(args.answers_file, expected, settings, files, _usual(settings), media)


def _usual(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a setting that was left to its default means, where a word says the same.

    A model of Transformers' own has positions of its own where none are named. What was not noted of a run is as now.
    """
    usual = {"prune_layer": 0, "text_chunking": "release", QUERIES: settings[QUERIES]}
    usual |= {"budget": "fixed", "mass": 0.9, "budget_split": "even"}
    if "conv_mode" in settings:
        usual |= {"positions": "original" if settings.get("prune_layer") else "compact"}
        usual |= {"vision_dtype": settings["dtype"]}
    return usual


def identified(write: WriteAnswer, answers: AnswersFile) -> WriteAnswer:
    """Write answers that say which checkpoint and which image they belong to."""
    parts = {part.replace(" ", "_"): identity.digest(files) for part, files in (answers.files or {}).items()}

    def write_identified(index: int, record: dict[str, Any]) -> None:
        metadata = record["metadata"]
        metadata["run"] = metadata.get("run", {}) | ({"files": parts} if parts else {})
        if answers.media[index] is not None and "error" not in metadata:
            with suppress(OSError):  # gone since it was read
                metadata["media"] = identity.of_file(answers.media[index])
        write(index, record)

    return write_identified


def _report(args: Namespace, answers_file: Path, questions: int) -> None:
    """Say where the answers are, what was lost, what images kept and, if asked for, how long they took."""
    logger.info("%d answers in %s", questions, answers_file)
    if answers_file.stat().st_size and (lost := told(count_losses(read_jsonl(answers_file, {})))):
        logger.warning("of %d questions %s", questions, lost)
    if questions and {args.budget, args.budget_split} & {*MOVING, "importance"}:
        logger.info("%s", Kept.of(read_metadata(answers_file)) or "no image was given a budget")
    if args.save_latency:
        save_latency(answers_file)
    if args.profile and questions:
        profile = profile_of(read_metadata(answers_file))
        logger.info("%s", profile or "nothing profiled: a single batch was answered, and the first one warms up")


def _begin(
    make_dataset: Callable[..., QuestionDataset],
    args: Namespace,
    pruner: Pruner | None,
    samples: Sequence[Sample],
    processes: Processes,
) -> tuple[Model, QuestionDataset, dict[str, Any]]:
    loaded = load_model(args, pruner)
    places = (loaded.tokenizer, loaded.image_processor, loaded.model.config, args.conv_mode)
    return loaded, make_dataset(samples, *places), described(args, loaded.model)


def described(args: Namespace, model: Any) -> dict[str, Any]:
    """What decides the answers of a LLaVA model besides the pruner, as records have it under ``run``."""
    return describe_run(args, model) | ({"model_base": args.model_base} if args.model_base else {})


def _ask(
    begin: Begin,
    args: Namespace,
    pruner: Pruner | None,
    samples: dict[int, Sample],
    write: WriteAnswer,
    processes: Processes,
) -> None:
    """Load the model and let it answer ``samples``, given by their index among all questions."""
    model, dataset, told_of_run = begin(args, pruner, list(samples.values()), processes)
    plan = Run(
        model.name,
        describe_pruner(pruner) | {"run": told_of_run},
        generation_options(args.temperature, args.top_p, args.num_beams, args.max_new_tokens, args.static_cache),
        args.batch_size,
        args.num_workers,
        args.on_error,
        progress=processes.is_main,
        profile=args.profile,
    )
    indices = list(samples)
    speed = run(dataset, model, plan, lambda place, record: write(indices[place], record))
    if processes.is_main:
        logger.info("%d questions at %.1f per second", len(samples), speed)
