"""Pruners on the embedded model: one table, one results file, two pictures.

Draws the shapes benchmark, answers it without pruning and with each of them at a quarter, an eighth and a sixteenth of
the visual tokens, and writes ``shapes_results.json``, ``shapes_accuracy.png`` and ``shapes_selection.png``.
"""

import argparse
import json
import statistics
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.asking.batch import generation_options
from llava.asking.llava import LlavaModel
from llava.asking.load import check_options, choose_pruner, load_model
from llava.command import check_values, run_program, with_defaults
from llava.eval import model_vqa_loader
from llava.eval.ask.dataset import read_image
from llava.eval.ask.loop import Run, run
from llava.eval.ask.options import describe_pruner, describe_run
from llava.eval.ask.parsers import PRUNED, demo_parser
from llava.eval.ask.specs import Spec, read_specs
from llava.eval.pictures import figures
from llava.eval.pictures.shown import NO_ANSWER
from llava.eval.results.demo_table import paired_table, row_line, table
from llava.eval.results.paired import Paired
from llava.eval.tasks import shapes as eval_shapes
from llava.eval.tasks.base import SHORT
from llava.eval.tasks.scores import clustered_stderr
from llava.eval.tasks.tables import import_extra
from llava.mm_utils import expand2square, to_rgb
from llava.outputs import nothing_left
from llava.provenance import environment
from llava.pruners import Pruner
from llava.records import InputError, check_writable, local_path, replace_file
from llava.selecting.options import NATIVE, PruningOptions, names_of
from llava.shapes.benchmark import write_benchmark

SHARES = (4, 8, 16)
SELECTION_SHARE = 8
MAX_NEW_TOKENS = 8  # every answer is one word
NOTE = "A ranking on this small model says nothing about LLaVA; it shows that the pruners run and what they keep."


@dataclass(frozen=True)
class Row:
    """One row of the table: a pruner, or several that differ in their seed only and are averaged.

    ``positions`` is a model's of that name, None where nothing is pruned or a decoder layer leaves each token its own;
    ``host`` is how else a choice is applied.
    """

    name: str
    visual_token_num: int
    pruners: tuple[Pruner | None, ...]
    positions: str | None = None
    host: PruningOptions = PruningOptions()

    @property
    def options(self) -> list[PruningOptions]:
        """How a model is set for each of the pruners."""
        return [replace(self.host, pruner=pruner, positions=self.positions) for pruner in self.pruners]


@dataclass(frozen=True)
class Drawn:
    """The questions, their labels, and the folder their images lie in."""

    questions: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    images: Path

    def dataset(self, loaded: LlavaModel) -> model_vqa_loader.CustomDataset:
        """The questions as ``loaded`` reads them."""
        model = (loaded.tokenizer, loaded.image_processor, loaded.model.config, loaded.conv_mode)
        return model_vqa_loader.CustomDataset(self.questions, self.images, *model)


def settings(
    num_tokens: int, random_seeds: int, positions: Sequence[str] = ("compact",), pruners: str = PRUNED
) -> list[Row]:
    """No pruner first, then every pruner at every share of ``num_tokens``; ``random`` once per seed.

    Raises:
        InputError: ``pruners``, as ``read_specs`` reads them, are none, or have an option that is of no use here.
    """
    rows = [Row("none", num_tokens, (None,))]
    specs = [spec for spec in read_specs(pruners, embedded=True) if spec.name != "none"]
    for where, spec in product(positions, specs):
        for share in SHARES:
            row = _row(spec, num_tokens // share, random_seeds if str(spec) == "random" else 1, where)
            if where == positions[0] or row.positions == where:  # at a decoder layer there is one way alone
                rows.append(row)
    return rows


def _row(spec: Spec, budget: int, seeds: int, positions: str) -> Row:
    """The row of a pruner at a budget, of which ``seeds`` are averaged."""
    parser = model_vqa_loader.build_parser()
    words = [*spec.words, "--visual_token_num", str(budget)]
    args = [parser.parse_args([*words, *(["--seed", str(seed)] if seeds > 1 else [])]) for seed in range(seeds)]
    if args[0].positions is not None:
        raise InputError(f"--pruners: {spec}: --positions says where kept tokens stand")
    pruners, where = tuple(map(choose_pruner, args)), None if args[0].prune_layer else positions
    given = {name: getattr(args[0], name) for name in names_of(NATIVE) if getattr(args[0], name) is not None}
    try:
        (host, *_) = [PruningOptions(pruner, **given | {"positions": where}) for pruner in pruners]
    except ValueError as error:
        raise InputError(f"--pruners: {spec}, {budget} tokens: {error}") from error
    return Row(str(spec), budget, pruners, where, replace(host, pruner=None, positions=None))


def draw_benchmark(folder: Path, num_questions: int, seed: int) -> Drawn:
    """Draw the test split into ``folder`` and read it back."""
    write_benchmark(folder, split="test", num_questions=num_questions, seed=seed)
    return Drawn(
        SHORT.read(folder / "shapes_test.jsonl"),
        eval_shapes.SHAPES.truth[0].read(folder / "shapes_test_labels.jsonl"),
        folder / "images",
    )


def measure(setting: Row, loaded: LlavaModel, benchmark: Drawn, args: Namespace) -> tuple[list[float], float]:
    """Ask every question under a setting.

    Returns:
        Per question the share of the setting's pruners that answered it rightly, and the mean number of visual tokens.
    """
    dataset = benchmark.dataset(loaded)
    correct, tokens = [], []
    applied = {name: getattr(setting.host, name) for name in names_of(NATIVE)} | {"positions": setting.positions}
    chosen = Namespace(**vars(args) | applied)
    folder = args.output_dir / "answers" / setting.name
    suffix = "_positionsoriginal" if setting.positions == "original" else ""
    for number, (pruner, options) in enumerate(zip(setting.pruners, setting.options, strict=True)):
        loaded.model.pruning = options
        answers_file = folder / f"vtn_{setting.visual_token_num}{suffix}_{number}.jsonl"
        plan = Run(
            f"{setting.name} {setting.visual_token_num}",
            describe_pruner(pruner) | {"run": describe_run(chosen, loaded.model)},
            generation_options(max_new_tokens=MAX_NEW_TOKENS),
            args.batch_size,
            progress=False,  # there is a bar of all settings, and bars within bars leave blank lines in a log
        )
        records: dict[int, dict[str, Any]] = {}
        run(dataset, loaded, plan, records.__setitem__)
        answers = [records[index] for index in range(len(records))]
        replace_file(answers_file, "".join(f"{json.dumps(answer)}\n" for answer in answers))
        correct.append(eval_shapes.is_correct(answers, benchmark.labels))
        tokens += [answer["metadata"]["visual_tokens"] for answer in answers]
    return [statistics.fmean(hits) for hits in zip(*correct, strict=True)], statistics.fmean(tokens)


def summarize(
    setting: Row,
    scores: Sequence[float],
    tokens: float,
    reference: Sequence[float] | None,
    benchmark: Drawn,
    unpruned: Sequence[float] | None = None,
) -> dict[str, Any]:
    """One row of the results file; accuracies and their standard errors are in [0, 1].

    Args:
        scores: per question, as ``measure`` returns them.
        tokens: mean number of visual tokens the language model read.
        reference: the scores of ``random`` at the same budget and positions, to which the row is compared question by
            question.
        unpruned: the scores without a pruner, to which the row is compared too, unless it is the mean of several seeds.
    """
    images = [question["image"] for question in benchmark.questions]
    categories = [label["category"] for label in benchmark.labels]
    row = {
        "pruner": setting.name,
        "visual_token_num": setting.visual_token_num,
        "positions": setting.positions,
        "accuracy": statistics.fmean(scores),
        "stderr": clustered_stderr(scores, images),
        "questions": len(scores),
        "seeds": len(setting.pruners),
        "visual_tokens_kept": tokens,
        "by_type": {
            name: statistics.fmean(s for s, category in zip(scores, categories, strict=True) if category == name)
            for name in sorted(set(categories))
        },
    }
    if reference is not None:
        gains = [score - other for score, other in zip(scores, reference, strict=True)]
        row["above_random"] = statistics.fmean(gains)
        row["above_random_stderr"] = clustered_stderr(gains, images)
    if unpruned is not None and len(setting.pruners) == 1:
        found = Paired.of(unpruned, scores)
        row |= {"only_unpruned": found.lost, "only_pruned": found.won, "p_value": found.p_value}
    return row


def measure_all(loaded: LlavaModel, benchmark: Drawn, args: Namespace) -> list[dict[str, Any]]:
    """Every row of the table, pruner ``none`` first; each is printed as soon as it is there."""
    num_tokens = loaded.model.get_vision_tower().num_patches
    rows, random_scores, unpruned = [], {}, None
    chosen = settings(num_tokens, args.random_seeds, args.positions, args.pruners)
    for setting in tqdm(chosen, unit="setting", desc="demo", leave=False, disable=None):
        scores, tokens = measure(setting, loaded, benchmark, args)
        place = setting.positions, setting.visual_token_num
        if setting.name == "random":
            random_scores[place] = scores
        reference = None if setting.name == "random" else random_scores.get(place)
        rows.append(summarize(setting, scores, tokens, reference, benchmark, unpruned))
        with tqdm.external_write_mode():
            print(row_line(rows[-1]), flush=True)
        unpruned = scores if unpruned is None else unpruned
    return rows


def draw_selection(loaded: LlavaModel, benchmark: Drawn, index: int, path: Path, pruners: str) -> None:
    """Draw which tokens of one question's image each pruner keeps, with the answers that result."""
    model, dataset = loaded.model, benchmark.dataset(loaded)
    sample, tower = dataset.samples[index], model.get_vision_tower()
    panels, plan = {}, generation_options(max_new_tokens=MAX_NEW_TOKENS)
    for setting in settings(tower.num_patches, random_seeds=1, pruners=pruners):
        if setting.visual_token_num not in (tower.num_patches, tower.num_patches // SELECTION_SHARE):
            continue
        (model.pruning,) = setting.options
        (answer,) = loaded.answer_items([dataset.item(index, dataset[index])], plan)
        keep = range(tower.num_patches) if setting.name == "none" else model.last_prune.keep[0].tolist()
        panels[f"{setting.name} ({answer.visual_tokens})\n{answer.text or NO_ANSWER}"] = keep
    colour = tuple(int(255 * channel) for channel in loaded.image_processor.image_mean)
    seen = expand2square(to_rgb(read_image(sample.image, sample.question_id)), colour)
    figures.draw_selections(seen, panels, tower.num_patches_per_side, path, sample.query)


def run_demo(args: Namespace) -> None:
    """Measure every setting, print the table, write results and pictures into ``args.output_dir``.

    Raises:
        InputError: an unusable option or folder, before anything is drawn.
    """
    import_extra("matplotlib")
    check_values(args, build_parser())
    chosen = Namespace(**vars(args) | {"positions": args.positions[0]})
    inference = with_defaults(chosen, model_vqa_loader.build_parser())
    check_options(inference, None)
    settings(max(SHARES) ** 2, args.random_seeds, args.positions, args.pruners)  # says what is wrong with them
    args.output_dir = local_path(args.output_dir)
    results_file = args.output_dir / "shapes_results.json"
    args = Namespace(**(vars(inference) | vars(args) | {"conv_mode": "vicuna_v1", "temperature": 0.0}))
    with nothing_left(results_file):
        check_writable(results_file)
        loaded = load_model(Namespace(**vars(args) | {"positions": args.positions[0]}), None)
        measure_and_draw(loaded, args, results_file)


def measure_and_draw(loaded: LlavaModel, args: Namespace, results_file: Path) -> None:
    """Draw the benchmark, measure every setting, and write ``results_file`` and the pictures."""
    benchmark = draw_benchmark(args.output_dir / "shapes", args.num_questions, args.seed)
    if len({question["image"] for question in benchmark.questions}) < 2:
        raise InputError(f"--num-questions {args.num_questions}: all about one scene, but standard errors need two")
    rows = measure_all(loaded, benchmark, args)
    loaded.model.pruning = PruningOptions(positions=args.positions[0])
    run_settings = describe_run(args, loaded.model) | {"seed": args.seed, "batch_size": args.batch_size}
    results = {"rows": rows, "environment": environment() | run_settings, "note": NOTE}
    replace_file(results_file, json.dumps(results, indent=1) + "\n")
    plotted = [row for row in rows if row["positions"] in (None, args.positions[0])]
    figures.plot_accuracy(plotted, args.output_dir / "shapes_accuracy.png", "shapes, embedded model")
    draw_selection(loaded, benchmark, 0, args.output_dir / "shapes_selection.png", args.pruners)
    print(f"\n{table(rows)}\n\n{paired_table(rows)}\n\n{NOTE}\nresults and pictures: {args.output_dir}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return demo_parser()


if __name__ == "__main__":
    run_program(build_parser(), run_demo)
