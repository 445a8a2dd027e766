"""Score answers to ScienceQA: accuracy over a split and, what papers report, over its questions with an image.

ScienceQA: https://arxiv.org/abs/2209.09513.
"""

import argparse
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llava.command import run_program
from llava.eval.tasks.matching import (
    add_output_arg,
    by_question,
    is_missing,
    naming_files,
    percent,
    percent_interval,
    publish,
    read_answers,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, local_path, read_json, replace_file

logger = logging.getLogger(__name__)

PROBLEM_KEYS = {"choices": list, "answer": int}
FAILED = "FAILED"
UNANSWERED = {"text": FAILED, "prompt": "Unknown"}


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


def score(
    answers: Sequence[dict[str, Any]],
    problems: Mapping[str, dict[str, Any]],
    pids: Sequence[str],
    options: str = "ABCDE",
) -> Result:
    """Accuracy over the answers whose prompt holds an image, as papers report it.

    Problems without any answer are no part of ``value``; ``missing`` counts those among them that have an image.

    Args:
        problems: ``problems.json``.
        pids: the split, from ``pid_splits.json``.

    Raises:
        InputError: answers outside the split, or none with an image.
    """
    judged = judge(answers, problems, pids, options)
    with_image = [entry for entry in judged if entry["is_multimodal"]]
    if not with_image:
        raise InputError("no answer's prompt holds <image>, so there is no accuracy on questions with an image")
    correct = list(map(_is_correct, with_image))
    unanswered = set(pids).difference(str(answer["question_id"]) for answer in answers)
    with_unseen_image = sum(bool(problems[pid].get("image")) for pid in unanswered)
    unread = sum(map(is_missing, answers))
    hits = sum(map(_is_correct, judged))
    return Result(
        benchmark="sqa",
        metric="IMG accuracy",
        value=percent(correct),
        count=len(correct),
        missing=with_unseen_image + unread,
        unparsable=sum(entry["parsed_ans"] == FAILED for entry in with_image) - unread,
        ci95=percent_interval(correct),
        details={
            "accuracy": None if unanswered else 100 * hits / len(judged),
            "correct": hits,
            "total": len(judged),
            "text_only_missing": len(unanswered) - with_unseen_image,
        },
    )


def _is_correct(entry: Mapping[str, Any]) -> bool:
    return entry["parsed_ans"] == entry["ground_truth"] and entry["index"] >= 0


def report(result: Result) -> str:
    """The line that LLaVA prints."""
    correct, total = result.details["correct"], result.details["total"]
    return (
        f"Total: {total}, Correct: {correct}, Accuracy: {100 * correct / total:.2f}%, IMG-Accuracy: {result.value:.2f}%"
    )


def read_split(folder: str, split: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """``problems.json`` and the problem ids of one split of ``pid_splits.json``, checked.

    Raises:
        InputError: unknown split, or a problem of it that is not described.
    """
    base = local_path(folder)
    splits, problems = read_json(base / "pid_splits.json", dict), read_json(base / "problems.json", dict)
    if split not in splits:
        raise InputError(f"--split {split!r} is not in {base / 'pid_splits.json'}; valid are {', '.join(splits)}")
    if not isinstance(splits[split], list) or not all(isinstance(pid, str) for pid in splits[split]):
        raise InputError(f"{base / 'pid_splits.json'}: {split!r} is not a list of problem ids")
    for pid in splits[split]:
        check_record(problems.get(pid), f"{base / 'problems.json'}, problem {pid!r}", PROBLEM_KEYS)
    return problems, splits[split]


def write_details(args: argparse.Namespace, judged: Sequence[dict[str, Any]]) -> None:
    """LLaVA's two files: the right and wrong answers one by one, and the choice and text of every problem."""
    hits = sum(map(_is_correct, judged))
    if args.output_file:
        halves = {"correct": [], "incorrect": []}
        for entry in judged:
            record = {key: value for key, value in entry.items() if key != "index"}
            halves["correct" if _is_correct(entry) else "incorrect"].append(record)
        replace_file(args.output_file, json.dumps(halves, indent=2))
    if args.output_result:
        summary = {
            "acc": 100 * hits / len(judged),
            "correct": hits,
            "count": len(judged),
            "results": {entry["question_id"]: entry["index"] for entry in judged},
            "outputs": {entry["question_id"]: entry["pred"] for entry in judged},
        }
        replace_file(args.output_result, json.dumps(summary, indent=2))


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    problems, pids = read_split(args.base_dir, args.split)
    answers = read_answers(args.result_file, "prompt")
    with naming_files(result_file=args.result_file, base_dir=args.base_dir):
        result = score(answers, problems, pids, args.options)
    write_details(args, judge(answers, problems, pids, args.options))
    publish(result, report(result), args.output)
    if result.details["text_only_missing"]:
        logger.info(
            "%d problems without an image have no answer and count as wrong in Accuracy: go by IMG-Accuracy alone",
            result.details["text_only_missing"],
        )


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_science_qa", description=__doc__)
    parser.add_argument("--base-dir", required=True, help="folder of pid_splits.json and problems.json")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--output-file", help="write the right and the wrong answers here")
    parser.add_argument("--output-result", help="write the choice and the text of every answer here")
    parser.add_argument("--split", default="test")
    parser.add_argument("--options", default="ABCDE", help="letters of the choices")
    add_output_arg(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
