"""Score answers to the validation questions of VQAv2 or VizWiz: soft accuracy against the references.

It is what converting the answers and uploading them to the challenge would give.
VQA: https://arxiv.org/abs/1505.00468, VizWiz: https://arxiv.org/abs/1802.08218.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from llava.eval.m4c_evaluator import EvalAIAnswerProcessor, soft_accuracy, strip_punctuation, unify_words
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
    refuse_repeated,
    scorer_parser,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, read_json, read_jsonl

NORMALIZE = EvalAIAnswerProcessor()
VQAV2_KEYS = {"question_id": (int, str), "answers": list}
VIZWIZ_KEYS = {"image": str, "question": str, "answers": list}
OPTIONAL_KEYS = {"answer_type": str}
QUESTION_KEYS = {"question_id": (int, str), "image": str, "text": str}


def accuracy(text: str, references: Sequence[str]) -> float:
    """Soft accuracy of one answer, in [0, 1].

    The answer is normalised first, as the converters do before an upload. Of what it gets then the challenge normalises
    both sides, unless all references are the same.
    """
    prediction, *others = (_one_line(answer) for answer in (NORMALIZE(text), *references))
    if len(set(others)) > 1:
        normal = {answer: unify_words(strip_punctuation(answer)) for answer in {prediction, *others}}
        prediction, others = normal[prediction], [normal[answer] for answer in others]
    return soft_accuracy(prediction, others)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def score(answers: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], benchmark: str) -> Result:
    """Mean soft accuracy, overall and by ``answer_type`` where annotations have one.

    Args:
        annotations: one per answer, in the order of the answers, from ``match_vqav2`` or ``match_vizwiz``.
        benchmark: ``vqav2`` or ``vizwiz``.
    """
    scores = [
        accuracy(answer["text"], [reference["answer"] for reference in annotation["answers"]])
        for answer, annotation in zip(tqdm(answers, unit="answer", leave=None), annotations, strict=True)
    ]
    missing = sum(map(is_missing, answers))
    types = [annotation.get("answer_type") for annotation in annotations]
    return Result(
        benchmark=benchmark,
        metric="soft accuracy",
        value=percent(scores),
        count=len(scores),
        missing=missing,
        unparsable=sum(not answer["text"].strip() for answer in answers) - missing,
        ci95=percent_interval(scores),
        details={} if None in types else {"by_answer_type": percent_by(types, scores)},
    )


def match_vqav2(answers: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The annotation of every answer, by ``question_id``.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    check_same_questions(by_question(answers), (str(annotation["question_id"]) for annotation in annotations))
    annotation_of = {str(annotation["question_id"]): annotation for annotation in annotations}
    return [annotation_of[str(answer["question_id"])] for answer in answers]


def match_vizwiz(
    answers: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    questions: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The annotation of every answer: by image with the question file, else by position, the question being checked.

    VizWiz has one question per image and no question ids.

    Raises:
        InputError: answers that do not belong to the annotations, or answers to other questions at some position.
    """
    if questions is not None:
        image_of = {qid: question["image"] for qid, question in by_question(questions, "asked").items()}
        check_same_questions(by_question(answers), image_of)
        refuse_repeated(image_of.values(), "image")
        check_same_questions(image_of.values(), (annotation["image"] for annotation in annotations))
        annotation_of = {annotation["image"]: annotation for annotation in annotations}
        return [annotation_of[image_of[str(answer["question_id"])]] for answer in answers]
    if len(answers) != len(annotations):
        raise InputError(f"{len(answers)} answers to {len(annotations)} annotated questions")
    for position, (answer, annotation) in enumerate(zip(answers, annotations, strict=True), 1):
        if annotation["question"].strip() not in answer.get("prompt", ""):
            raise InputError(
                f"answer {position} is not to the annotated question {annotation['question']!r}; "
                "where the order differs, give --question-file"
            )
    return list(annotations)


def report(result: Result) -> str:
    """Overall accuracy, then one line for every type of answer."""
    lines = [f"Overall accuracy: {result.value:.2f}% ({result.count} questions)"]
    if by_type := result.details.get("by_answer_type"):
        lines += ["", "Accuracy by answer type:", *breakdown(by_type)]
    return "\n".join(lines)


def read_annotations(path: str) -> tuple[str, list[dict[str, Any]]]:
    """The benchmark (``vqav2`` or ``vizwiz``) that an annotation file belongs to, and its annotations, checked.

    Raises:
        InputError: a file of neither form, or without reference answers, as for a test split.
    """
    content = read_json(path, (dict, list))
    is_array = isinstance(content, list)
    annotations = content if is_array else content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise InputError(f"{path}: expected VQAv2's object with 'annotations' or VizWiz's array of questions")
    for number, annotation in enumerate(annotations, 1):
        where = f"{path}, annotation {number}"
        check_record(annotation, where, VIZWIZ_KEYS if is_array else VQAV2_KEYS, OPTIONAL_KEYS)
        for reference in annotation["answers"]:
            check_record(reference, where, {"answer": str})
        if not annotation["answers"]:
            raise InputError(f"{where}: no reference answers, as in a test split")
    return "vizwiz" if is_array else "vqav2", annotations


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    benchmark, annotations = read_annotations(args.annotation_file)
    questions = read_jsonl(args.question_file, QUESTION_KEYS) if args.question_file else None
    answers = read_answers(args.result_file)
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        if benchmark == "vqav2":
            matched = match_vqav2(answers, annotations)
        else:
            matched = match_vizwiz(answers, annotations, questions)
    result = score(answers, matched, benchmark)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = scorer_parser("vqa", __doc__, "v2_mscoco_val2014_annotations.json, or VizWiz's val.json")
    parser.add_argument("--question-file", help="VizWiz: the questions asked, where their order is not val.json's")
    return parser
