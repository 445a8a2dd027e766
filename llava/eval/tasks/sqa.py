"""ScienceQA, test: school science, over the questions with an image. https://arxiv.org/abs/2209.09513."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.asking.losses import without_placeholders
from llava.asking.prompts import OPTION_LETTER, science_query
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.tasks.base import EVAL_ZIP, DataFile, Form, Images, Sample, Task
from llava.records import InputError, check_record, local_path

SOURCE = "https://github.com/lupantech/ScienceQA, data/scienceqa"
KEYS = {"id": (int, str), "conversations": list}


def _check_turns(questions: Sequence[dict[str, Any]]) -> None:
    for number, question in enumerate(questions, 1):
        turns = question["conversations"]
        check_record(turns[0] if turns else None, f"question {number}", {"value": str})


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
)


def match(
    questions: Sequence[dict[str, Any]], annotations: tuple[Sequence[str], Mapping[str, Any]], images: Path
) -> None:
    """Raise InputError unless the questions are of the test split, and its problems are described."""
    split, problems = annotations
    if strange := sorted({str(question["id"]) for question in questions} - {*split}):
        raise InputError(f"{len(strange)} questions are not in the test split, such as {strange[0]!r}")
    if absent := sorted({*split} - {*problems}):
        raise InputError(f"{len(absent)} questions of the test split are not in problems.json, such as {absent[0]!r}")


SQA = Task(
    name="sqa",
    title="SQA-IMG",
    folder="scienceqa",
    asks=SCIENCE,
    asking={"single_pred_prompt": True},
    splits={
        "llava_test_CQM-I": DataFile(
            "llava_test_CQM-I.json",
            "no release holds it; scripts/eval/select_image_questions.py makes it from llava_test_CQM-A.json",
            2017,
            KEYS | {"image": str},
            made_from="llava_test_CQM-A.json",
        ),
        "llava_test_CQM-A": DataFile("llava_test_CQM-A.json", EVAL_ZIP, 4241, KEYS),
    },
    images=Images("images/test", f"the test images of {SOURCE}"),
    annotations=(
        DataFile("pid_splits.json", SOURCE, 4241, in_data=True, member="test"),
        DataFile("problems.json", SOURCE, None, {"choices": list, "answer": int}, kind=dict, in_data=True),
    ),
    match=match,
)
