"""VQAv2: open questions about COCO images. https://arxiv.org/abs/1612.00837."""

import logging
from pathlib import Path

from llava.eval.tasks.base import SHORT, Given, Task
from llava.eval.tasks.files import EVAL_ZIP, DataFile, Images, asked, write_json
from llava.eval.tasks.matching import by_question, check_same_questions, ids
from llava.eval.tasks.scores import Result
from llava.eval.tasks.soft_accuracy import NORMALIZE, OPTIONAL_KEYS, check_references, most_given, report, score_softly
from llava.records import InputError

logger = logging.getLogger(__name__)

TEST = asked("llava_vqav2_mscoco_test2015", 447793)
FILE = "llava_vqav2_mscoco_test2015.jsonl"
ID = {"question_id": (int, str)}


def score(given: Given) -> Result:
    """Mean soft accuracy over the validation questions; matched by ``question_id``.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    answers, (annotations,) = given.answers, given.annotations
    annotation_of = {str(annotation["question_id"]): annotation for annotation in annotations}
    check_same_questions(by_question(answers), ids(annotations))
    return score_softly("vqav2", answers, [annotation_of[str(answer["question_id"])] for answer in answers])


def submit(given: Given, path: Path) -> None:
    """Write ``[{question_id, answer}]`` for every question of the test split, with normalised answers.

    The challenge wants them all, also where only those of test-dev were asked: the others get an empty answer.
    """
    answers = by_question(given.answers)
    ids = [question["question_id"] for question in given.questions]
    if foreign := set(answers).difference(map(str, ids)):
        raise InputError(f"{len(foreign)} answers are to no question of {FILE}, such as {min(foreign)}")
    texts = {qid: NORMALIZE(answer["text"]) for qid, answer in answers.items()}
    logger.info("%s: %d questions, %d of them answered", path, len(ids), len(answers))
    write_json(path, [{"question_id": qid, "answer": texts.get(str(qid), "")} for qid in ids])


VQAV2 = Task(
    name="vqav2",
    title="VQAv2",
    folder="vqav2",
    asks=SHORT,
    splits=asked("llava_vqav2_mscoco_test-dev2015", 107394) | TEST,
    images=Images("test2015", "http://images.cocodataset.org/zips/test2015.zip", gigabytes=12),
    annotations=(*TEST.values(),),  # a submission covers every question of the test
    labels=(
        DataFile(
            "v2_mscoco_val2014_annotations.json",
            "https://visualqa.org/download.html",
            keys=ID | {"answers": list},
            optional=OPTIONAL_KEYS,
            member="annotations",
            check=check_references,
        ),
    ),
    questions=DataFile(FILE, EVAL_ZIP, keys=ID),
    submit_reads=("questions",),
    scored=lambda split: False,
    score=score,
    report=report,
    references=lambda given: {
        str(each["question_id"]): most_given([reference["answer"] for reference in each["answers"]])
        for each in given.annotations[0]
    },
    submit=submit,
    server="https://eval.ai/web/challenges/challenge-page/830",
    upload=".json",
)
