"""What a benchmark is: its files, how its questions are asked, and how its answers are scored."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llava.asking.losses import noted, without_placeholders
from llava.asking.prompts import vqa_loader_query, vqa_query
from llava.eval.tasks.files import ASKED, DataFile, Images, answer_lines
from llava.eval.tasks.matching import ids
from llava.eval.tasks.scores import Result
from llava.records import local_path, read_jsonl


@dataclass(frozen=True)
class Sample:
    """One question about an image, or about none.

    Args:
        question_id: what errors call it; it need not be unique.
        prompt: the question as asked, without the image token.
        query: what relevance-based pruners compare with the image.
        image: the image file, its content, or None.
        record: what the answer's line begins with, key by key; ``answer_key`` may stand among them to keep its place.
            LLaVA's ``question_id``, ``prompt`` and ``text`` if not given.
        answer_key: the key that the answer gets.
        lost: what the prompt lost already, by the names of ``llava.asking.losses``.
    """

    question_id: int | str
    prompt: str
    query: str
    image: Path | bytes | None
    record: dict[str, Any] = field(default_factory=dict)
    answer_key: str = "text"
    lost: Mapping[str, int] = field(default_factory=dict)

    def losses(self) -> dict[str, int]:
        """What of the question does not reach the model, by the names of ``llava.asking.losses``."""
        return noted({"placeholders": without_placeholders(self.prompt)[1], **self.lost})

    def line(self, answer: str = "") -> dict[str, Any]:
        """The beginning of the answer's line."""
        return (self.record or {"question_id": self.question_id, "prompt": self.prompt}) | {self.answer_key: answer}


@dataclass(frozen=True)
class Form:
    """How questions are read and asked.

    Args:
        door: the program of ``llava.eval`` that asks them.
        read: a question file, given its path, as records.
        samples: records and the folder of images, with the task's ``asking``, as they are asked.
        question_flag: of the program, for the question file.
        conv_mode: the program's template where none is named.
        template: the one that LLaVA's scripts name, for Vicuna.
        generation: the program's defaults that others do not have.
        options: of the program, by their attributes, that ``samples`` takes.
        plain: a pretrained-only model is asked with the template's variant for it.
        crop: images are cropped to their centre where the model's other images are padded.
    """

    door: str
    read: Callable[[str | Path], Any]
    samples: Callable[..., list[Sample]]
    question_flag: str = "--question-file"
    conv_mode: str = "llava_v1"
    template: str = "vicuna_v1"
    generation: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    plain: bool = False
    crop: bool = False


def vqa_samples(
    questions: Sequence[Mapping[str, Any]], image_folder: str | Path, query: Callable[[str], str]
) -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: objects with ``question_id``, ``image`` and ``text``.
        image_folder: what ``image`` is relative to.
        query: turns ``text`` into what pruners compare with the image.
    """
    folder = local_path(image_folder)
    return [
        Sample(line["question_id"], line["text"], query(line["text"]), folder / line["image"]) for line in questions
    ]


SENTENCES = Form("model_vqa", partial(read_jsonl, required=ASKED), partial(vqa_samples, query=vqa_query))
"""Questions that want whole sentences."""
SHORT = replace(
    SENTENCES,
    door="model_vqa_loader",
    samples=partial(vqa_samples, query=vqa_loader_query),
    generation={"max_new_tokens": 128},
    plain=True,
)
"""Questions that want a word or a phrase."""


@dataclass(frozen=True)
class Given:
    """What scorers get.

    Args:
        answers: the lines of the answers, or what a judge said of them.
        questions: the records of the question file, where it is given.
        annotations: the records of each file of ``Task.truth``.
        images: the folder of images, where it is given.
    """

    answers: Any
    questions: Any = None
    annotations: Sequence[Any] = ()
    images: Path | None = None


def only(
    records: Any, wanted: Iterable[Hashable], key: Callable[[Any], Hashable] = lambda each: str(each["question_id"])
) -> Any:
    """Those of a list of records, or of a dict by their names, that are wanted; of None, None."""
    wanted = set(wanted)
    if isinstance(records, Mapping):
        return {name: record for name, record in records.items() if name in wanted}
    return None if records is None else [record for record in records if key(record) in wanted]


def by_ids(given: Given) -> Given:
    """What belongs to the answers by ``question_id``."""
    answered = ids(given.answers)
    annotations = [only(records, answered) for records in given.annotations]
    return replace(given, questions=only(given.questions, answered), annotations=annotations)


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Args:
        name: of the script that runs it.
        title: its name in tables.
        folder: below the folder of all benchmarks, for questions, data and answers.
        asks: how its questions are asked.
        splits: the question file of every split, the usual split first.
        images: None where the question file holds them.
        annotations: what scoring the usual split reads, or submitting it; empty where a server or a judge scores.
        labels: what scoring reads where that is not ``annotations``, as for another split.
        questions: the question file as scoring and submitting read it.
        answers: the file of answers as scoring and submitting read it.
        verdicts: what a judge said of the answers, which is scored instead of them.
        asking: options of the program that asks, by their attributes.
        scored: whether a split is scored here.
        judged: the folder of stored verdicts, ``grades`` or ``reviews``, or "".
        server: who scores what is not scored here, as the end of "submit it to".
        upload: how the name of the file ends that a server takes; "" where it takes the answers as they are.
        per_percent: points of the metric that count as one percent in an average over benchmarks.
        narrow: leaves of what scorers get, annotations and questions, what belongs to the answers, for a run that asked
            the first questions alone; by ``question_id`` unless a task says otherwise.
        match: raises InputError where questions, annotations (in their order) and images do not belong together.
        score, report: the result, and the lines that are printed of it.
        submit: writes what a server takes.
        score_reads, score_takes, submit_reads: which fields of ``Given`` scoring needs beside the answers and which it
            takes, and which submitting needs.
        make: writes what a run makes, given the folders of questions and of data.
        checkpoint: the folder of the model that is asked unless another one is named, where it is not LLaVA's.
        name_of: what the scores of a result call the question of an answer's line.
        references: the right answers as text by these names, given what scorers get; None where there is not one text.
    """

    name: str
    title: str
    folder: str
    asks: Form
    splits: Mapping[str, DataFile]
    score: Callable[[Given], Result]
    report: Callable[[Result], str]
    images: Images | None = None
    annotations: tuple[DataFile, ...] = ()
    labels: tuple[DataFile, ...] = ()
    questions: DataFile | None = None
    answers: DataFile = answer_lines()
    verdicts: DataFile | None = None
    asking: Mapping[str, Any] = field(default_factory=dict)
    scored: Callable[[str], bool] = lambda split: True
    judged: str = ""
    server: str = ""
    upload: str = ""
    per_percent: float = 1.0
    narrow: Callable[[Given], Given] = by_ids
    match: Callable[[Any, Sequence[Any], Path], None] | None = None
    submit: Callable[[Given, Path], None] | None = None
    score_reads: tuple[str, ...] = ("annotations",)
    score_takes: tuple[str, ...] = ()
    submit_reads: tuple[str, ...] = ()
    make: Callable[[Path, Path], None] | None = None
    checkpoint: str = ""
    name_of: Callable[[Mapping[str, Any]], Hashable] = lambda answer: str(answer.get("question_id"))
    references: Callable[[Given], Mapping[Hashable, str]] | None = None

    @property
    def usual_split(self) -> str:
        """The split that is asked unless another one is named."""
        return next(iter(self.splits))

    @property
    def truth(self) -> tuple[DataFile, ...]:
        """What ``Given.annotations`` are read from."""
        return self.labels or self.annotations

    @property
    def asked_with(self) -> list[str]:
        """``asking`` as words of the program's command line."""
        flags = {f"--{name.replace('_', '-')}": value for name, value in self.asking.items()}
        return [word for flag, value in flags.items() for word in ([flag] if value is True else [flag, str(value)])]

    def samples(self, split: str, eval_dir: Path, data_dir: Path) -> list[Sample]:
        """The questions of a split as they are asked.

        Raises:
            InputError: the question file cannot be read.
        """
        data = data_dir / self.folder
        questions = self.asks.read(self.splits[split].find(eval_dir / self.folder, data))
        return self.asks.samples(questions, data / (self.images.path if self.images else ""), **self.asking)
