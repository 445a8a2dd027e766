"""GQA, testdev balanced: accuracy, overall and by kind of question. https://arxiv.org/abs/1902.09506.

Validity, plausibility, grounding and consistency need scene graphs, choices
and the full question file; like LLaVA, this scorer leaves them out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, Given, Task
from llava.eval.tasks.files import DataFile, Images, asked, write_json
from llava.eval.tasks.matching import by_question, check_same_questions, ids
from llava.eval.tasks.scores import Result, breakdowns, percent_by
from llava.records import InputError, check_record

SOURCE = "https://downloads.cs.stanford.edu/nlp/data/gqa/"
QUESTION_KEYS = {"answer": str, "isBalanced": bool}
OPTIONAL_KEYS = {"types": dict, "question": str, "semantic": list, "groups": dict}
STEP_KEYS = {"operation": str, "argument": str}
FREE_OPERATIONS = ("exist", "query: name", "choose name")


def prediction(text: str) -> str:
    """An answer as GQA compares it: lower-case, without trailing periods."""
    return text.rstrip(".").lower()


def balanced(questions: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The questions that are scored."""
    return {qid: question for qid, question in questions.items() if question["isBalanced"]}


def score(given: Given) -> Result:
    """Share of balanced questions whose answer is exactly the annotated one.

    Breakdowns appear in ``details`` where every question has the field they need (``types``, ``question``,
    ``semantic``, ``groups``).

    Raises:
        InputError: a balanced question has no answer, or an answer has no question.
    """
    answered, (annotated,) = by_question(given.answers), given.annotations
    asked_for = balanced(annotated)
    check_same_questions((qid for qid in answered if qid in asked_for or qid not in annotated), asked_for)
    texts = [prediction(answered[qid]["text"]) for qid in asked_for]
    questions = list(asked_for.values())
    correct = [text == question["answer"] for text, question in zip(texts, questions, strict=True)]
    unread = sum(not text.strip() for text in texts)
    scored = [answered[qid] for qid in asked_for]
    details = _details(questions, texts, correct)
    return Result.of_scores("gqa", "accuracy", correct, scored, unread, details, asked_for)


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
    return "\n".join([*lines, *breakdowns("Accuracy", details)])


def _check(questions: Mapping[str, dict[str, Any]], file: str) -> None:
    for qid, question in questions.items():
        where = f"{file}, question {qid!r}"
        check_record(question.get("types", {}), where, {}, dict.fromkeys(("structural", "semantic"), str))
        check_record(question.get("groups", {}), where, {}, {"global": (str, type(None))})
        for step in question.get("semantic", []):
            check_record(step, where, STEP_KEYS)
    if not balanced(questions):
        raise InputError(f"{file}: no balanced question in it")


def submit(given: Given, path: Path) -> None:
    """Write the predictions file that GQA's own eval.py reads."""
    answers = by_question(given.answers).items()
    write_json(path, [{"questionId": qid, "prediction": prediction(answer["text"])} for qid, answer in answers])


QUESTIONS = DataFile(
    "data/testdev_balanced_questions.json",
    f"{SOURCE}questions1.2.zip",
    12578,
    QUESTION_KEYS,
    OPTIONAL_KEYS,
    kind=dict,
    check=_check,
    in_data=True,
    elsewhere="data/questions/testdev_balanced_questions.json",
)
GQA = Task(
    name="gqa",
    title="GQA",
    folder="gqa",
    asks=SHORT,
    splits=asked("llava_gqa_testdev_balanced", 12578),
    images=Images("data/images", f"{SOURCE}images.zip", gigabytes=20.3),
    annotations=(QUESTIONS,),
    match=lambda questions, annotations, images: check_same_questions(ids(questions), balanced(annotations[0])),
    score=score,
    report=report,
    submit=submit,
    references=lambda given: {qid: question["answer"] for qid, question in given.annotations[0].items()},
)
