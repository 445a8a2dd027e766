"""POPE, "is there a THING in the image?": F1 in three categories of things, and their mean.

https://arxiv.org/abs/2305.10355. Labels: the first release, whose random category has 2910 questions.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from llava.asking.prompts import SHORT_ANSWER
from llava.eval.tasks.base import SHORT, Given, Task, only
from llava.eval.tasks.files import DataFile, Images, answer_lines, asked
from llava.eval.tasks.matching import by_question, check_same_questions, ids, is_missing
from llava.eval.tasks.scores import Result, percentile_interval, scores_of
from llava.records import InputError, local_path

RELEASE = "https://github.com/AoiDragon/POPE/tree/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"
OLD_RELEASE = "the labels must be those of AoiDragon/POPE at commit e3e39262c85a6a83f26cf5094022a782cb0df58d"
ROWS = {"random": 2910, "popular": 3000, "adversarial": 3000}
OUTCOMES = ("TP", "FP", "TN", "FN")


def says_yes(text: str) -> bool:
    """Whether LLaVA counts an answer as yes: unless ``No``, ``no`` or ``not`` is a word of its first sentence."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return {"No", "no", "not"}.isdisjoint(words)


def score(given: Given) -> Result:
    """Mean F1 over the categories of the questions; a question without an answer counts as wrong.

    Labels are matched by image and question text.

    Raises:
        InputError: answers to other questions, or labels for other questions.
    """
    answers, questions = given.answers, given.questions
    labels = dict(zip(ROWS, given.annotations, strict=True))
    answered = by_question(answers)
    check_same_questions(answered, ids(questions))
    counts: dict[str, Counter[str]] = {}
    hits: dict[str, bool] = {}
    for category in sorted({question["category"] for question in questions}):
        of_category = [question for question in questions if question["category"] == category]
        outcomes = _outcomes(category, of_category, answered, labels.get(category, ()))
        counts[category] = Counter(outcomes.values())
        hits |= {question: outcome[0] == "T" for question, outcome in outcomes.items()}
    missing = sum(map(is_missing, answers))
    by_category = {
        category: {name: count[name] for name in OUTCOMES}
        | {name: 100 * measure for name, measure in measures(count).items()}
        for category, count in counts.items()
    }
    value, interval = 100 * fmean(measures(count)["f1"] for count in counts.values()), _interval(list(counts.values()))
    unparsable = sum(not _is_yes_or_no(answer["text"]) for answer in answers) - missing
    details, scores = {"by_category": by_category}, scores_of(hits, [*hits.values()])
    return Result("pope", "mean F1", value, len(answers), missing, unparsable, interval, details, scores)


def _outcomes(
    category: str,
    questions: Sequence[dict[str, Any]],
    answers: Mapping[str, dict[str, Any]],
    labels: Sequence[dict[str, Any]],
) -> dict[str, str]:
    """Which of ``OUTCOMES`` every question of one category has, by its id."""
    try:
        check_same_questions(map(_key, questions), map(_key, labels))
    except InputError as error:
        raise InputError(f"labels of {category!r}, question by question: {error}; {OLD_RELEASE}") from error
    truth = {_key(label): label["label"] == "yes" for label in labels}
    for label in labels:
        if truth[_key(label)] != (label["label"] == "yes"):
            raise InputError(f"labels of {category!r}: {_key(label)} is both yes and no")
    outcomes = {}
    for question in questions:
        answer, is_there = answers[str(question["question_id"])], truth[_key(question)]
        if question["text"].split("\n")[0] not in answer["prompt"]:
            raise InputError(f"question {question['question_id']!r} is {question['text']!r}, not {answer['prompt']!r}")
        yes = not is_there if is_missing(answer) else says_yes(answer["text"])
        outcomes[str(question["question_id"])] = ("T" if yes == is_there else "F") + ("P" if yes else "N")
    return outcomes


def narrow(given: Given) -> Given:
    """The questions that were answered, and in each category their labels."""
    questions, labels = only(given.questions, ids(given.answers)), []
    for category, of_category in zip(ROWS, given.annotations, strict=True):
        asked_of = [_key(question) for question in questions if question["category"] == category]
        labels.append(only(of_category, asked_of, _key))
    return replace(given, questions=questions, annotations=labels)


def references(given: Given) -> dict[Hashable, str]:
    """The label of every question, by its id."""
    labels = {
        (category, _key(label)): label for category, of in zip(ROWS, given.annotations, strict=True) for label in of
    }
    told = {str(question["question_id"]): (question["category"], _key(question)) for question in given.questions}
    return {question_id: labels[key]["label"] for question_id, key in told.items() if key in labels}


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
    import numpy as np  # names of benchmarks are looked up without it

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


def _check(labels: Sequence[Mapping[str, Any]], file: str) -> None:
    for number, label in enumerate(labels, 1):
        if label["label"] not in ("yes", "no"):
            raise InputError(f"{file}, label {number}: {label['label']!r}; valid are yes and no")


OF_LABELS = {"keys": {"image": str, "text": str, "label": str}, "check": _check, "in_data": True, "lines": True}
LABELS = {
    category: DataFile(f"coco/coco_pope_{category}.json", RELEASE, rows, **OF_LABELS) for category, rows in ROWS.items()
}


def read_labels(folder: str | Path, questions: Sequence[Mapping[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    """The labels of each category from the files in a folder; none of one that the questions are not of.

    Raises:
        InputError: no such folder or file, or a label other than yes and no.
    """
    categories = {question["category"] for question in questions}
    paths = {category: local_path(folder) / Path(file.path).name for category, file in LABELS.items()}
    return [file.read(paths[category]) if category in categories else [] for category, file in LABELS.items()]


SPLIT = asked("llava_pope_test", 8910, category=str)
POPE = Task(
    name="pope",
    title="POPE",
    folder="pope",
    asks=SHORT,
    splits=SPLIT,
    images=Images("val2014", "http://images.cocodataset.org/zips/val2014.zip", gigabytes=6),
    annotations=tuple(LABELS.values()),
    questions=SPLIT["llava_pope_test"],
    answers=answer_lines(prompt=str),
    score_reads=("questions", "annotations"),
    narrow=narrow,
    match=lambda questions, annotations, images: check_same_questions(
        map(_key, questions), (_key(label) for labels in annotations for label in labels)
    ),
    score=score,
    report=report,
    references=references,
)
