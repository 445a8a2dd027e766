"""MME: perception and cognition, two yes-or-no questions per image. https://arxiv.org/abs/2306.13394."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.asking.prompts import SHORT_ANSWER
from llava.eval.tasks.base import SHORT, Given, Task, only
from llava.eval.tasks.files import Images, answer_lines, asked
from llava.eval.tasks.matching import check_same_questions, is_missing
from llava.eval.tasks.scores import Result, percentile_interval, scores_of
from llava.records import InputError, local_path, read_lines

logger = logging.getLogger(__name__)

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
YES_OR_NO = "Please answer yes or no."

Question = tuple[str, str, str]
"""Category, stem of the image's file name, question without the instruction and with single spaces."""


def question_key(category: str, file: str, text: str) -> Question:
    """What answers and ground truth are matched by: MME puts one space or two before its instruction."""
    question = text.replace(SHORT_ANSWER.strip(), "").replace(YES_OR_NO, "")
    return category, file.split(".")[0], " ".join(question.split())


def parse_answer(text: str) -> str:
    """``yes``, ``no`` or ``other``: what the first four characters hold, yes before no.

    Tabs and line ends, which would tear the benchmark's own table apart, count as spaces.
    """
    start = re.sub(r"\r\n|[\t\r\n]", " ", text).lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def score(given: Given) -> Result:
    """Perception score, at most 2000: in each category the share of right answers and of images with both right.

    The truth is in the folder of images; categories that neither it nor the answers hold are left out and listed in
    ``details``.

    Raises:
        InputError: answers to other questions, or an image without exactly two.
    """
    answers, truth = given.answers, given.annotations[0] if given.annotations else read_truth(given.images)
    keys = [_key_of(answer) for answer in answers]
    check_same_questions(keys, (key for key, _ in truth))
    expected = dict(truth)
    predictions = [parse_answer(answer["text"]) for answer in answers]
    images: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for key, predicted in zip(keys, predictions, strict=True):
        images[key[0]][key[1]].append(predicted == expected[key])
    for category, files in images.items():
        for file, hits in files.items():
            if len(hits) != 2:
                fault = f"image {file!r} of {category} has {len(hits)} questions, not two"
                raise InputError(f"{fault}: a limit must not part them")
    outcomes = {category: Counter(map(sum, images[category].values())) for category in images}
    by_category = {name: _category(outcomes[name]) for name in (*PERCEPTION, *COGNITION) if name in outcomes}
    if left_out := [name for name in (*PERCEPTION, *COGNITION) if name not in outcomes]:
        logger.warning("not in the data and not answered, so left out of the totals: %s", ", ".join(left_out))
    missing = sum(map(is_missing, answers))
    perception, cognition = (_total(by_category, names) for names in (PERCEPTION, COGNITION))
    details = {"perception": perception, "cognition": cognition, "by_category": by_category, "left_out": left_out}
    interval = _interval([outcomes[name] for name in PERCEPTION if name in outcomes])
    unparsable = predictions.count("other") - missing
    seen = [(key, said == expected[key]) for key, said in zip(keys, predictions, strict=True) if key[0] in PERCEPTION]
    scores = scores_of((key for key, _ in seen), [hit for _, hit in seen])
    return Result("mme", "perception score", perception, len(answers), missing, unparsable, interval, details, scores)


def narrow(given: Given) -> Given:
    """The truth of the questions that were answered, as annotations."""
    truth = only(read_truth(given.images), map(_key_of, given.answers), lambda each: each[0])
    return replace(given, annotations=[truth])


def _key_of(answer: Mapping[str, Any]) -> Question:
    path = str(answer["question_id"]).split("/")
    if path[0] not in PERCEPTION + COGNITION or len(path) < 2:
        raise InputError(
            f"question_id {answer['question_id']!r} is not CATEGORY/FILE; "
            f"categories are {', '.join(PERCEPTION + COGNITION)}"
        )
    return question_key(path[0], path[-1], answer["prompt"])


def _category(images: Mapping[int, int]) -> dict[str, float]:
    """Score of a category from how many images have 0, 1 and 2 right answers."""
    count = sum(images.values())
    accuracy, both = (images[1] + 2 * images[2]) / (2 * count), images[2] / count
    return {"score": 100 * (accuracy + both), "acc": accuracy, "acc_plus": both, "count": 2 * count}


def _total(by_category: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> float:
    return float(sum(by_category[name]["score"] for name in names if name in by_category))


def _interval(categories: Sequence[Mapping[int, int]], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the sum of the categories' scores; images are resampled within their category.

    Resampling images and counting their right answers is drawing the counts from a multinomial distribution.
    """
    import numpy as np  # names of benchmarks are looked up without it

    rng = np.random.default_rng(seed)
    totals = np.zeros(resamples)
    for images in categories:
        observed = np.array([images[hits] for hits in range(3)])
        draws = rng.multinomial(observed.sum(), observed / observed.sum(), resamples)
        totals += draws @ [0.0, 50.0, 200.0] / observed.sum()
    return percentile_interval(totals)


def report(result: Result) -> str:
    """The totals with the score of every category, as MME's own program lists them."""
    lines = []
    for name, categories in (("Perception", PERCEPTION), ("Cognition", COGNITION)):
        lines += [f"=========== {name} ===========", f"total score: {result.details[name.lower()]}", ""]
        found = {category: result.details["by_category"].get(category) for category in categories}
        lines += [f"\t {category}  score: {entry['score']}" for category, entry in found.items() if entry]
        lines.append("")
    return "\n".join(lines)


def read_truth(folder: str | Path) -> list[tuple[Question, str]]:
    """The questions and right answers of ``MME_Benchmark_release_version``.

    Each category is a folder of text files, one per image, with one question, a tab and its answer per line; they lie
    in ``questions_answers_YN`` where the images have a folder of their own.

    Raises:
        InputError: no such folder, no category in it, or a line of another form.
    """
    base = local_path(folder)
    truth = []
    for category in (*PERCEPTION, *COGNITION):
        texts = base / category / "questions_answers_YN"
        for file in sorted((texts if texts.is_dir() else base / category).glob("*.txt")):
            truth += _read_image(category, file)
    if not truth:
        raise InputError(f"--data-dir {base}: no CATEGORY/*.txt or CATEGORY/questions_answers_YN/*.txt in it")
    return truth


def _read_image(category: str, file: Path) -> list[tuple[Question, str]]:
    truth = []
    for number, line in enumerate(read_lines(file), 1):
        question, _, answer = line.strip().rpartition("\t")
        if line.strip() and (not question or answer.strip().lower() not in ("yes", "no")):
            raise InputError(f"{file}, line {number}: expected a question, a tab and Yes or No, found {line!r}")
        if line.strip():
            truth.append((question_key(category, file.name, question), answer.strip().lower()))
    return truth


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Any], images: Path) -> None:
    """Raise InputError unless every question of the folder of images is asked once."""
    paths = [str(question["question_id"]).split("/") for question in questions]
    if lacking := sorted({path[0] for path in paths if not (images / path[0]).is_dir()}):
        raise InputError(f"{images} has no folder {', '.join(lacking)}")
    given = [question_key(path[0], path[-1], q["text"]) for path, q in zip(paths, questions, strict=True)]
    check_same_questions(given, (key for key, _ in read_truth(images)))


MME = Task(
    name="mme",
    title="MME",
    folder="MME",
    asks=SHORT,
    splits=asked("llava_mme", 2374),
    images=Images(
        "MME_Benchmark_release_version",
        "ask its authors: https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
    ),
    per_percent=20.0,  # perception comes to at most 2000
    answers=answer_lines(prompt=str),
    score_reads=("images",),
    narrow=narrow,
    match=match,
    score=score,
    report=report,
    name_of=_key_of,
    references=lambda given: dict(read_truth(given.images)),
)
