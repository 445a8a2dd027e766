"""What a benchmark is: its files, how its questions are asked, and how its answers are scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llava.asking.losses import noted, without_placeholders
from llava.asking.prompts import vqa_loader_query, vqa_query
from llava.eval.tasks.scores import Result
from llava.eval.tasks.tables import read_tsv
from llava.records import InputError, Types, check_record, local_path, read_json, read_jsonl

EVAL_ZIP = "unpack LLaVA's eval.zip, linked from https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md"
ASKED = {"question_id": (int, str), "image": str, "text": str}
"""Keys of a line of a question file."""

Records = Sequence[Any] | Mapping[str, Any]


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
class DataFile:
    """A file that a benchmark reads: JSON, a JSON object per line (``.jsonl``), or a table (``.tsv``), by its name.

    Args:
        path: relative to the benchmark's folder.
        source: where to get it, as the end of a sentence.
        rows: how many records it holds, None where nobody says.
        keys: what every record must have, and of what types; of a table the columns.
        optional: the same for what a record may have.
        kind: what holds the records of JSON, ``list`` or ``dict``.
        check: raises InputError for records that ``keys`` cannot tell from good ones.
        in_data: it lies below the data (images and annotations), not below the questions.
        elsewhere: a second place where it may lie.
        member: the key of the file's object that holds the records, if not all do.
        lines: one JSON object per line, whatever its name.
        made_from: the benchmark's script makes it, if it is absent, from this file, or from nothing.
    """

    path: str
    source: str
    rows: int | None = None
    keys: Types = field(default_factory=dict)
    optional: Types = field(default_factory=dict)
    kind: type = list
    check: Callable[[Any], None] | None = None
    in_data: bool = False
    elsewhere: str = ""
    member: str = ""
    lines: bool = False
    made_from: str | None = None

    def find(self, folder: Path, data: Path) -> Path:
        """Where the file lies, or should lie, given the benchmark's folders of questions and of data."""
        places = [(data if self.in_data else folder) / place for place in (self.path, self.elsewhere) if place]
        return next((place for place in places if place.is_file()), places[0])

    def read(self, path: str | Path) -> Any:
        """The records of such a file, checked.

        Raises:
            InputError: no such file, or one of another form; names the file.
        """
        path = local_path(path)
        if self.path.endswith(".tsv"):
            records = read_tsv(path, list(self.keys), without=["image"]).to_dict("records")
        elif self.lines or self.path.endswith(".jsonl"):
            records = read_jsonl(path, self.keys, self.optional)
        else:
            records = self._read_json(path)
        if self.check:
            try:
                self.check(records)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        return records

    def _read_json(self, path: Path) -> Records:
        if self.member:
            records = read_json(path, dict).get(self.member)
        else:
            records = read_json(path, (dict, list))
        if not isinstance(records, self.kind):
            where = f" under {self.member!r}" if self.member else ""
            wanted = "object" if self.kind is dict else "array"
            raise InputError(f"{path}: not of the release's form: expected a JSON {wanted}{where}")
        if not records:
            raise InputError(f"{path}: no questions in it")
        if self.keys:
            for key, record in records.items() if isinstance(records, dict) else enumerate(records, 1):
                check_record(record, f"{path}, question {key!r}", self.keys, self.optional)
        return records


@dataclass(frozen=True)
class Images:
    """The folder, below the data, that the questions' images lie in."""

    path: str
    source: str
    key: str = "image"  # what a question calls its image


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
        generation: the program's defaults.
        crop: images are cropped to their centre where the model's other images are padded.
    """

    door: str
    read: Callable[[str | Path], Any]
    samples: Callable[..., list[Sample]]
    question_flag: str = "--question-file"
    conv_mode: str = "llava_v1"
    template: str = "vicuna_v1"
    generation: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 1024, "temperature": 0.2})
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
SHORT = Form(
    "model_vqa_loader",
    SENTENCES.read,
    partial(vqa_samples, query=vqa_loader_query),
    generation={"max_new_tokens": 128, "temperature": 0.2},
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
        asking: options of the program that asks, by their attributes.
        scored: whether a split is scored here.
        judged: the folder of stored verdicts, ``grades`` or ``reviews``, which are scored instead of answers, or "".
        server: who scores what is not scored here, as the end of "submit it to".
        upload: how the name of the file ends that a server takes; "" where it takes the answers as they are.
        per_percent: points of the metric that count as one percent in an average over benchmarks.
        match: raises InputError where questions, annotations (in their order) and images do not belong together.
        checkpoint: the folder of the model that is asked unless another one is named, where it is not LLaVA's.
    """

    name: str
    title: str
    folder: str
    asks: Form
    splits: Mapping[str, DataFile]
    images: Images | None = None
    annotations: tuple[DataFile, ...] = ()
    asking: Mapping[str, Any] = field(default_factory=dict)
    scored: Callable[[str], bool] = lambda split: True
    judged: str = ""
    server: str = ""
    upload: str = ""
    per_percent: float = 1.0
    match: Callable[[Any, Sequence[Any], Path], None] | None = None
    score: Callable[[Given], Result] | None = None
    report: Callable[[Result], str] | None = None
    submit: Callable[[Given, Path], None] | None = None
    checkpoint: str = ""

    @property
    def usual_split(self) -> str:
        """The split that is asked unless another one is named."""
        return next(iter(self.splits))

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


def asked(split: str, rows: int | None, source: str = EVAL_ZIP, **more: Any) -> dict[str, DataFile]:
    """A split whose questions are lines of JSON; ``more`` are further keys."""
    return {split: DataFile(f"{split}.jsonl", source, rows, ASKED | more)}
