"""Score answers to GQA's balanced questions: accuracy, overall and by kind of question.

GQA: https://arxiv.org/abs/1902.09506. Validity, plausibility, grounding and consistency need scene graphs, choices
and the full question file; like LLaVA, this scorer leaves them out.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, DataFile, Images, Task, asked
from llava.eval.tasks.matching import (
    breakdown,
    by_question,
    check_same_questions,
    is_missing,
    naming_files,
    percent,
    percent_by,
    percent_interval,
    publish,
    read_answers,
    scorer_parser,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, read_json

QUESTION_KEYS = {"answer": str, "isBalanced": bool}
OPTIONAL_KEYS = {"types": dict, "question": str, "semantic": list, "groups": dict}
STEP_KEYS = {"operation": str, "argument": str}
FREE_OPERATIONS = ("exist", "query: name", "choose name")


def prediction(text: str) -> str:
    """An answer as GQA compares it: lower-case, without trailing periods."""
    return text.rstrip(".").lower()


def score(answers: Sequence[dict[str, Any]], questions: Mapping[str, dict[str, Any]]) -> Result:
    """Share of balanced questions whose answer is exactly the annotated one.

    Args:
        questions: ``testdev_balanced_questions.json``; breakdowns appear in ``details`` where every question has the
            field they need (``types``, ``question``, ``semantic``, ``groups``).

    Raises:
        InputError: a balanced question has no answer, or an answer has no question.
    """
    answered = by_question(answers)
    balanced = {qid: question for qid, question in questions.items() if question["isBalanced"]}
    check_same_questions((qid for qid in answered if qid in balanced or qid not in questions), balanced)
    predictions = {qid: prediction(answered[qid]["text"]) for qid in balanced}
    correct = [predictions[qid] == question["answer"] for qid, question in balanced.items()]
    missing = sum(is_missing(answered[qid]) for qid in balanced)
    return Result(
        benchmark="gqa",
        metric="accuracy",
        value=percent(correct),
        count=len(correct),
        missing=missing,
        unparsable=sum(not text.strip() for text in predictions.values()) - missing,
        ci95=percent_interval(correct),
        details=_details(list(balanced.values()), list(predictions.values()), correct),
    )


def _details(questions: Sequence[dict[str, Any]], predictions: Sequence[str], correct: Sequence[bool]) -> dict:
    details = {}
    if all("structural" in question.get("types", {}) for question in questions):
        kinds = ["open" if question["types"]["structural"] == "query" else "binary" for question in questions]
        details |= {kind: group["value"] for kind, group in percent_by(kinds, correct).items()}
    for name, group_of in GROUPINGS.items():
        groups = [group_of(question) for question in questions]
        if None not in groups:
            details[name] = percent_by(groups, correct)
    if all("groups" in question for question in questions):
        details["distribution"] = distribution(questions, predictions)
    return details


def steps(question: Mapping[str, Any]) -> int | None:
    """Reasoning steps of a question, without those that only find or name an object."""
    if "semantic" not in question:
        return None
    operations = [f"{step['operation']}: {step['argument']}" for step in question["semantic"]]
    return sum(not any(free in operation for free in FREE_OPERATIONS) for operation in operations)


GROUPINGS = {
    "by_structural_type": lambda question: question.get("types", {}).get("structural"),
    "by_semantic_type": lambda question: question.get("types", {}).get("semantic"),
    "by_words": lambda question: len(question["question"].split()) if "question" in question else None,
    "by_steps": steps,
}


def distribution(questions: Sequence[dict[str, Any]], predictions: Sequence[str]) -> float:
    """Chi-square distance of predicted from gold answers within question groups, weighted by size, over 100.

    0 is best; questions without a global group do not count.
    """
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    for question, text in zip(questions, predictions, strict=True):
        if (group := question["groups"].get("global")) is not None:
            gold[group][question["answer"]] += 1
            predicted[group][text] += 1
    total = sum(histogram.total() for histogram in gold.values())
    weighted = sum(
        histogram.total() * sum((predicted[group][answer] - n) ** 2 / n for answer, n in histogram.items())
        for group, histogram in gold.items()
    )
    return weighted / total / 100 if total else 0.0


def report(result: Result) -> str:
    """GQA's summary lines, then one block for every grouping."""
    details = result.details
    lines = [f"{name.capitalize()}: {details[name]:.2f}%" for name in ("binary", "open") if name in details]
    lines.append(f"Accuracy: {result.value:.2f}%")
    if "distribution" in details:
        lines.append(f"Distribution: {details['distribution']:.2f} (lower is better)")
    for name in GROUPINGS:
        if name in details:
            lines += ["", f"Accuracy {name.replace('_', ' ')}:", *breakdown(details[name])]
    return "\n".join(lines)


def read_questions(path: str) -> dict[str, dict[str, Any]]:
    """GQA's question file, checked."""
    questions = read_json(path, dict)
    for qid, question in questions.items():
        where = f"{path}, question {qid!r}"
        check_record(question, where, QUESTION_KEYS, OPTIONAL_KEYS)
        check_record(question.get("types", {}), where, {}, dict.fromkeys(("structural", "semantic"), str))
        check_record(question.get("groups", {}), where, {}, {"global": (str, type(None))})
        for step in question.get("semantic", []):
            check_record(step, where, STEP_KEYS)
    if not any(question["isBalanced"] for question in questions.values()):
        raise InputError(f"{path}: no balanced question in it")
    return questions


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    questions = read_questions(args.annotation_file)
    answers = read_answers(args.result_file)
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        result = score(answers, questions)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return scorer_parser("gqa", __doc__, "testdev_balanced_questions.json")


SOURCE = "https://downloads.cs.stanford.edu/nlp/data/gqa/"


def _check(questions: Mapping[str, dict[str, Any]]) -> None:
    for qid, question in questions.items():
        where = f"question {qid!r}"
        check_record(question.get("types", {}), where, {}, dict.fromkeys(("structural", "semantic"), str))
        check_record(question.get("groups", {}), where, {}, {"global": (str, type(None))})
        for step in question.get("semantic", []):
            check_record(step, where, STEP_KEYS)
    if not any(question["isBalanced"] for question in questions.values()):
        raise InputError("no balanced question in it")


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Mapping[str, Any]], images: Path) -> None:
    """Raise InputError unless every balanced question of the annotations is asked once."""
    balanced = [qid for qid, question in annotations[0].items() if question["isBalanced"]]
    check_same_questions((str(question["question_id"]) for question in questions), balanced)


GQA = Task(
    name="gqa",
    title="GQA",
    folder="gqa",
    asks=SHORT,
    splits=asked("llava_gqa_testdev_balanced", 12578),
    images=Images("data/images", f"{SOURCE}images.zip"),
    annotations=(
        DataFile(
            "data/testdev_balanced_questions.json",
            f"{SOURCE}questions1.2.zip",
            12578,
            QUESTION_KEYS,
            OPTIONAL_KEYS,
            kind=dict,
            check=_check,
            in_data=True,
            elsewhere="data/questions/testdev_balanced_questions.json",
        ),
    ),
    match=match,
)
