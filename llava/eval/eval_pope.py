"""Score answers to POPE, "is there a THING in the image?", by F1 in each category and their mean.

POPE: https://arxiv.org/abs/2305.10355. Labels: the first release, whose random category has 2910 questions.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from llava.asking.prompts import SHORT_ANSWER
from llava.command import run_program
from llava.eval.tasks.matching import (
    add_output_arg,
    by_question,
    check_same_questions,
    is_missing,
    naming_files,
    publish,
    read_answers,
)
from llava.eval.tasks.scores import Result, percentile_interval
from llava.records import InputError, local_path, read_jsonl

QUESTION_KEYS = {"question_id": (int, str), "image": str, "text": str, "category": str}
LABEL_KEYS = {"image": str, "text": str, "label": str}
OLD_RELEASE = "the labels must be those of AoiDragon/POPE at commit e3e39262c85a6a83f26cf5094022a782cb0df58d"
OUTCOMES = ("TP", "FP", "TN", "FN")


def says_yes(text: str) -> bool:
    """Whether LLaVA counts an answer as yes: unless ``No``, ``no`` or ``not`` is a word of its first sentence."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return {"No", "no", "not"}.isdisjoint(words)


def score(
    answers: Sequence[dict[str, Any]],
    questions: Sequence[dict[str, Any]],
    labels: Mapping[str, Sequence[dict[str, Any]]],
) -> Result:
    """Mean F1 over the categories of the questions; a question without an answer counts as wrong.

    Args:
        questions: the question file, which says which category each ``question_id`` belongs to.
        labels: for each category its labels; they are matched by image and question text.

    Raises:
        InputError: answers to other questions, or labels for other questions.
    """
    answered = by_question(answers)
    check_same_questions(answered, (str(question["question_id"]) for question in questions))
    counts: dict[str, Counter[str]] = {}
    for category in sorted({question["category"] for question in questions}):
        asked = [question for question in questions if question["category"] == category]
        counts[category] = _outcomes(category, asked, answered, labels[category])
    missing = sum(map(is_missing, answers))
    return Result(
        benchmark="pope",
        metric="mean F1",
        value=100 * fmean(measures(count)["f1"] for count in counts.values()),
        count=len(answers),
        missing=missing,
        unparsable=sum(not _is_yes_or_no(answer["text"]) for answer in answers) - missing,
        ci95=_interval(list(counts.values())),
        details={
            "by_category": {
                category: {name: count[name] for name in OUTCOMES}
                | {name: 100 * measure for name, measure in measures(count).items()}
                for category, count in counts.items()
            }
        },
    )


def _outcomes(
    category: str,
    questions: Sequence[dict[str, Any]],
    answers: Mapping[str, dict[str, Any]],
    labels: Sequence[dict[str, Any]],
) -> Counter[str]:
    """How often each of ``OUTCOMES`` occurs in one category."""
    try:
        check_same_questions(map(_key, questions), map(_key, labels))
    except InputError as error:
        raise InputError(f"labels of {category!r}, question by question: {error}; {OLD_RELEASE}") from error
    truth = {_key(label): label["label"] == "yes" for label in labels}
    for label in labels:
        if truth[_key(label)] != (label["label"] == "yes"):
            raise InputError(f"labels of {category!r}: {_key(label)} is both yes and no")
    outcomes = Counter()
    for question in questions:
        answer, is_there = answers[str(question["question_id"])], truth[_key(question)]
        if question["text"].split("\n")[0] not in answer["prompt"]:
            raise InputError(f"question {question['question_id']!r} is {question['text']!r}, not {answer['prompt']!r}")
        yes = not is_there if is_missing(answer) else says_yes(answer["text"])
        outcomes[("T" if yes == is_there else "F") + ("P" if yes else "N")] += 1
    return outcomes


def _key(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["image"], entry["text"].replace(SHORT_ANSWER, "")


def _is_yes_or_no(text: str) -> bool:
    return not says_yes(text) or "yes" in text.lower()


def measures(count: Mapping[str, int]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and share of yes, each in [0, 1] and 0 where nothing was to be divided."""
    tp, fp, tn, fn = (count[name] for name in OUTCOMES)
    total = tp + fp + tn + fn
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return {
        "accuracy": (tp + tn) / total,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if tp else 0.0,
        "yes_ratio": (tp + fp) / total,
    }


def _interval(counts: Sequence[Mapping[str, int]], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean F1 in percent; questions are resampled within their category.

    Resampling questions and counting outcomes is drawing the outcomes from a multinomial distribution.
    """
    rng = np.random.default_rng(seed)
    f1 = np.zeros(resamples)
    for count in counts:
        observed = np.array([count[name] for name in OUTCOMES])
        tp, fp, _, fn = rng.multinomial(observed.sum(), observed / observed.sum(), resamples).T
        f1 += 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return percentile_interval(100 * f1 / len(counts))


def report(result: Result) -> str:
    """The lines that LLaVA and CDPruner print."""
    lines = []
    for category, count in result.details["by_category"].items():
        found = measures(count)
        names = ("f1", "accuracy", "precision", "recall", "yes_ratio")
        lines += [
            f"Category: {category}, # samples: {sum(count[name] for name in OUTCOMES)}",
            "\t".join(OUTCOMES),
            "\t".join(str(count[name]) for name in OUTCOMES),
            f"Accuracy: {found['accuracy']}",
            f"Precision: {found['precision']}",
            f"Recall: {found['recall']}",
            f"F1 score: {found['f1']}",
            f"Yes ratio: {found['yes_ratio']}",
            ", ".join(f"{found[name]:.3f}" for name in names),
            "====================================",
        ]
    return "\n".join([*lines, f"Average F1 score: {result.value / 100}"])


def read_labels(folder: str, categories: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The label file of every category.

    Raises:
        InputError: no such folder or file, or a label other than yes and no.
    """
    labels = {}
    for category in sorted(categories):
        path = local_path(folder) / f"coco_pope_{category}.json"
        labels[category] = read_jsonl(path, LABEL_KEYS)
        for number, label in enumerate(labels[category], 1):
            if label["label"] not in ("yes", "no"):
                raise InputError(f"{path}, label {number}: {label['label']!r}; valid are yes and no")
    return labels


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    questions = read_jsonl(args.question_file, QUESTION_KEYS)
    labels = read_labels(args.annotation_dir, {question["category"] for question in questions})
    answers = read_answers(args.result_file, "prompt")
    files = {"result_file": args.result_file, "question_file": args.question_file}
    with naming_files(**files, annotation_dir=args.annotation_dir):
        result = score(answers, questions, labels)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_pope", description=__doc__)
    parser.add_argument("--annotation-dir", required=True, help="folder of coco_pope_CATEGORY.json")
    parser.add_argument("--question-file", required=True, help="llava_pope_test.jsonl")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    add_output_arg(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
