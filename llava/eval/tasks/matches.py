"""Whether the annotations of a benchmark are for its questions: what the scorers would refuse, found before the run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.asking.queries import SHORT_ANSWER
from llava.eval.tasks import mme as eval_mme
from llava.eval.tasks.matching import check_same_questions
from llava.eval.tasks.seed import question_key
from llava.records import InputError

Records = Sequence[Any] | Mapping[str, Any]


def _ids(records: Iterable[Mapping[str, Any]], key: str = "question_id") -> list[str]:
    return [str(record[key]) for record in records]


def _match_pope(questions: Records, annotations: Sequence[Records], images: Path) -> None:
    asked = [(question["image"], question["text"].replace(SHORT_ANSWER, "")) for question in questions]
    check_same_questions(asked, ((label["image"], label["text"]) for labels in annotations for label in labels))


def _match_mme(questions: Records, annotations: Sequence[Records], images: Path) -> None:
    paths = [str(question["question_id"]).split("/") for question in questions]
    if lacking := sorted({path[0] for path in paths if not (images / path[0]).is_dir()}):
        raise InputError(f"{images} has no folder {', '.join(lacking)}")
    asked = [eval_mme.question_key(p[0], p[-1], q["text"]) for p, q in zip(paths, questions, strict=True)]
    check_same_questions(asked, (key for key, _ in eval_mme.read_truth(images)))


def _match_gqa(questions: Records, annotations: Sequence[Records], images: Path) -> None:
    balanced = [str(question_id) for question_id, entry in annotations[0].items() if entry["isBalanced"]]
    check_same_questions(_ids(questions), balanced)


def _match_sqa(questions: Records, annotations: Sequence[Records], images: Path) -> None:
    split, problems = annotations
    if strange := sorted({*_ids(questions, "id")} - {*split}):
        raise InputError(f"{len(strange)} questions are not in the test split, such as {strange[0]!r}")
    if absent := sorted({*split} - {*problems}):
        raise InputError(f"{len(absent)} questions of the test split are not in problems.json, such as {absent[0]!r}")


MATCHES = {
    "gqa": _match_gqa,
    "mme": _match_mme,
    "mmvet": lambda questions, annotations, images: check_same_questions(
        (f"v1_{question_id}" for question_id in _ids(questions)), annotations[0]
    ),
    "pope": _match_pope,
    "seed": lambda questions, annotations, images: check_same_questions(
        map(question_key, _ids(questions)), map(question_key, _ids(annotations[0]))
    ),
    "shapes": lambda questions, annotations, images: check_same_questions(_ids(questions), _ids(annotations[0])),
    "sqa": _match_sqa,
    "textvqa": lambda questions, annotations, images: check_same_questions(
        _ids(questions), _ids(annotations[0], "image_id")
    ),
}
"""For each benchmark whose annotations name their questions, a check of questions, annotations (in the order of the
benchmark's table) and folder of images, which raises InputError where they do not belong together."""
