"""ScienceQA: accuracy over a split and, what papers report, over its questions with an image.

https://arxiv.org/abs/2209.09513.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.asking.losses import without_placeholders
from llava.asking.prompts import OPTION_LETTER, science_query
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.tasks.base import Form, Given, Sample, Task, only
from llava.eval.tasks.files import EVAL_ZIP, DataFile, Images, answer_lines, write_json
from llava.eval.tasks.matching import by_question, ids, is_missing
from llava.eval.tasks.scores import Result, percent, percent_interval, scores_of
from llava.records import InputError, check_record, local_path, read_json

logger = logging.getLogger(__name__)

FAILED = "FAILED"
UNANSWERED = {"text": FAILED, "prompt": "Unknown"}

SOURCE = "https://github.com/lupantech/ScienceQA, data/scienceqa"
KEYS = {"id": (int, str), "conversations": list}


def _check_turns(questions: Sequence[dict[str, Any]], file: str) -> None:
    for number, question in enumerate(questions, 1):
        turns = question["conversations"]
        check_record(turns[0] if turns else None, f"{file}, question {number}", {"value": str})


def science_samples(
    questions: Sequence[dict[str, Any]], image_folder: str | Path, single_pred_prompt: bool = False
) -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: from ``SCIENCE.read``.
        image_folder: what their images are relative to.
        single_pred_prompt: ask for the option's letter alone.
    """
    folder = local_path(image_folder)
    samples = []
    for question in questions:
        text, placeholders = without_placeholders(question["conversations"][0]["value"])
        text = text.strip()
        prompt = text + OPTION_LETTER if single_pred_prompt else text
        image = folder / question["image"] if "image" in question else None
        recorded = f"{DEFAULT_IMAGE_TOKEN}\n{prompt}" if image else prompt
        record = {"question_id": question["id"], "prompt": recorded}
        lost = {"placeholders": max(0, placeholders - (image is not None))}  # one says where the image goes
        samples.append(Sample(question["id"], prompt, science_query(recorded), image, record, lost=lost))
    return samples


SCIENCE = Form(
    "model_vqa_science",
    DataFile(".json", EVAL_ZIP, keys=KEYS, optional={"image": str}, check=_check_turns).read,
    science_samples,
    conv_mode="llava_v0",
    options=("single_pred_prompt",),
)


def parse_letter(text: str, options: str = "ABCDE") -> str:
    """The option that an answer names: ``A``, ``A. ...`` or one ``The answer is A.``; else ``FAILED``."""
    if text in list(options):
        return text
    if re.match(rf"[{re.escape(options)}]\. ", text):
        return text[0]
    found = re.findall(r"The answer is ([A-Z]).", text)
    return found[0] if len(found) == 1 else FAILED


def judge(
    answers: Sequence[dict[str, Any]],
    problems: Mapping[str, dict[str, Any]],
    pids: Sequence[str],
    options: str = "ABCDE",
) -> list[dict[str, Any]]:
    """What became of every problem of a split, in the split's order.

    Returns:
        LLaVA's records (``question_id``, ``parsed_ans``, ``ground_truth``, ``question``, ``pred``, ``is_multimodal``)
        with ``index``, the choice named by the answer, -1 where it names none that the problem has.

    Raises:
        InputError: answers to problems outside the split, or to one problem twice.
    """
    answered = by_question(answers)
    if foreign := [pid for pid in answered if pid not in set(pids)]:
        raise InputError(f"{len(foreign)} answers are to problems outside the split, such as {foreign[0]!r}")
    judged = []
    for pid in pids:
        answer, problem = answered.get(pid, UNANSWERED), problems[pid]
        if not 0 <= problem["answer"] < len(options):
            raise InputError(f"problem {pid!r}: answer {problem['answer']} has no letter among the options {options}")
        letter = parse_letter(answer["text"], options)
        judged.append(
            {
                "question_id": pid,
                "parsed_ans": letter,
                "ground_truth": options[problem["answer"]],
                "question": answer["prompt"],
                "pred": answer["text"],
                "is_multimodal": "<image>" in answer["prompt"],
                "index": options[: len(problem["choices"])].find(letter),
            }
        )
    return judged


def score(given: Given, options: str = "ABCDE") -> Result:
    """Accuracy over the answers whose prompt holds an image, as papers report it.

    Problems without any answer are no part of ``value``; ``missing`` counts those among them that have an image.

    Args:
        given: with ``annotations`` of the split's problem ids and of all problems.
        options: letters of the choices.

    Raises:
        InputError: answers outside the split, or none with an image.
    """
    answers, (pids, problems) = given.answers, given.annotations
    check_described(pids, problems)
    judged = judge(answers, problems, pids, options)
    with_image = [entry for entry in judged if entry["is_multimodal"]]
    if not with_image:
        raise InputError("no answer's prompt holds <image>, so there is no accuracy on questions with an image")
    correct = list(map(_is_correct, with_image))
    unanswered = set(pids).difference(str(answer["question_id"]) for answer in answers)
    with_unseen_image = sum(bool(problems[pid].get("image")) for pid in unanswered)
    unread = sum(map(is_missing, answers))
    hits, text_only = sum(map(_is_correct, judged)), len(unanswered) - with_unseen_image
    if text_only:
        logger.info(
            "%d problems without an image have no answer and count as wrong in Accuracy: go by IMG-Accuracy alone",
            text_only,
        )
    details = {
        "accuracy": None if unanswered else 100 * hits / len(judged),
        "correct": hits,
        "total": len(judged),
        "text_only_missing": text_only,
    }
    unparsable = sum(entry["parsed_ans"] == FAILED for entry in with_image) - unread
    counts = (len(correct), with_unseen_image + unread, unparsable)
    scores = scores_of((entry["question_id"] for entry in with_image), correct)
    return Result("sqa", "IMG accuracy", percent(correct), *counts, percent_interval(correct), details, scores)


def _is_correct(entry: Mapping[str, Any]) -> bool:
    return entry["parsed_ans"] == entry["ground_truth"] and entry["index"] >= 0


def report(result: Result) -> str:
    """The line that LLaVA prints."""
    correct, total = result.details["correct"], result.details["total"]
    return (
        f"Total: {total}, Correct: {correct}, Accuracy: {100 * correct / total:.2f}%, IMG-Accuracy: {result.value:.2f}%"
    )


def write_halves(judged: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write the right and the wrong answers one by one, as LLaVA does."""
    halves: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
    for entry in judged:
        record = {key: value for key, value in entry.items() if key != "index"}
        halves["correct" if _is_correct(entry) else "incorrect"].append(record)
    write_json(path, halves, indent=2)


def write_choices(judged: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write the choice and the text of every problem, as LLaVA does."""
    hits = sum(map(_is_correct, judged))
    summary = {
        "acc": 100 * hits / len(judged),
        "correct": hits,
        "count": len(judged),
        "results": {entry["question_id"]: entry["index"] for entry in judged},
        "outputs": {entry["question_id"]: entry["pred"] for entry in judged},
    }
    write_json(path, summary, indent=2)


def _check_ids(pids: Sequence[Any], file: str) -> None:
    if not all(isinstance(pid, str) for pid in pids):
        raise InputError(f"{file}: not a list of problem ids")


def check_described(pids: Sequence[str], problems: Mapping[str, Any]) -> None:
    """Raise InputError unless every problem of a split is among ``problems``."""
    if absent := sorted({*pids} - {*problems}):
        raise InputError(f"{len(absent)} questions of the split are not in problems.json, such as {absent[0]!r}")


def match(
    questions: Sequence[dict[str, Any]], annotations: tuple[Sequence[str], Mapping[str, Any]], images: Path
) -> None:
    """Raise InputError unless the questions are of the test split, and its problems are described."""
    split, problems = annotations
    if strange := sorted({str(question["id"]) for question in questions} - {*split}):
        raise InputError(f"{len(strange)} questions are not in the test split, such as {strange[0]!r}")
    check_described(split, problems)


def make(folder: Path, data: Path) -> None:
    """Write the questions of the whole test split that have an image, in their order: no release holds that file.

    Raises:
        InputError: there are no questions, or none of them has an image.
    """
    source, target = folder / "llava_test_CQM-A.json", folder / "llava_test_CQM-I.json"
    questions = read_json(source, list)
    with_image = [question for question in questions if isinstance(question, dict) and "image" in question]
    if not with_image:
        raise InputError(f"{source}: none of its {len(questions)} questions has an image")
    write_json(target, with_image, indent=2)
    logger.info("%s: %d of %d questions have an image", target, len(with_image), len(questions))


def narrow(given: Given) -> Given:
    """The problems of the split that were answered."""
    pids, problems = given.annotations
    return replace(given, annotations=(only(pids, ids(given.answers), str), problems))


SPLITS = DataFile("pid_splits.json", SOURCE, 4241, check=_check_ids, in_data=True, member="test")
PROBLEMS = DataFile("problems.json", SOURCE, None, {"choices": list, "answer": int}, kind=dict, in_data=True)
SQA = Task(
    name="sqa",
    title="SQA-IMG",
    folder="scienceqa",
    asks=SCIENCE,
    asking={"single_pred_prompt": True},
    splits={
        "llava_test_CQM-I": DataFile(
            "llava_test_CQM-I.json",
            "no release holds it; a run makes it from llava_test_CQM-A.json",
            2017,
            KEYS | {"image": str},
            made_from="llava_test_CQM-A.json",
        ),
        "llava_test_CQM-A": DataFile("llava_test_CQM-A.json", EVAL_ZIP, 4241, KEYS),
    },
    images=Images("images/test", f"the test images of {SOURCE}"),
    annotations=(SPLITS, PROBLEMS),
    answers=answer_lines(prompt=str),
    narrow=narrow,
    match=match,
    score=score,
    report=report,
    references=lambda given: {
        pid: problem["choices"][problem["answer"]] for pid, problem in given.annotations[1].items()
    },
    make=make,
)
