"""The files of a benchmark: where they lie and come from, and what they must hold."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from llava.asking.losses import count_losses, told
from llava.eval.tasks.tables import read_tsv
from llava.records import InputError, Types, check_record, local_path, read_json, read_jsonl, replace_file

logger = logging.getLogger(__name__)

EVAL_DIR = "playground/data/eval"
"""The folder of all benchmarks, where LLaVA's scripts have it."""
EVAL_ZIP = "unpack LLaVA's eval.zip, linked from https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md"
ASKED = {"question_id": (int, str), "image": str, "text": str}
"""Keys of a line of a question file."""

Records = Sequence[Any] | Mapping[str, Any]


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
        check: raises InputError for records that ``keys`` cannot tell from good ones, given what to call the file.
        in_data: it lies below the data (images and annotations), not below the questions.
        elsewhere: a second place where it may lie.
        member: the key of the file's object that holds the records, if not all do.
        lines: one JSON object per line, whatever its name.
        made_from: a run makes it, if it is absent, from this file, or from nothing.
    """

    path: str
    source: str
    rows: int | None = None
    keys: Types = field(default_factory=dict)
    optional: Types = field(default_factory=dict)
    kind: type = list
    check: Callable[[Any, str], None] | None = None
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
            records = read_tsv(path, list(self.keys)).to_dict("records")
        elif self.lines or self.path.endswith(".jsonl"):
            records = read_jsonl(path, self.keys, self.optional)
        else:
            records = self._read_json(path)
        if self.check:
            self.check(records, str(path))
        return records

    def _read_json(self, path: Path) -> Records:
        records, where = read_json(path, dict if self.member else (dict, list)), ""
        if self.member:
            if self.member not in records:
                raise InputError(f"{path}: no {self.member!r} in it; there are {', '.join(records)}")
            records, where = records[self.member], f" under {self.member!r}"
        if not isinstance(records, self.kind):
            wanted = "object" if self.kind is dict else "array"
            raise InputError(f"{path}: not of the release's form: expected a JSON {wanted}{where}")
        if not records:
            raise InputError(f"{path}: no questions in it")
        if self.keys:
            for key, record in records.items() if isinstance(records, dict) else enumerate(records, 1):
                check_record(record, f"{path}, question {key!r}", self.keys, self.optional)
        return records


class AnswersFile(DataFile):
    """Answers, one JSON object per line; reading them says in one line what was lost of their questions."""

    def read(self, path: str | Path) -> Any:
        answers = super().read(path)
        if lost := told(count_losses(answers)):
            logger.warning("%s: of %d questions %s", path, len(answers), lost)
        return answers


def answer_lines(**keys: Any) -> AnswersFile:
    """A file of answers, of which ``keys`` are needed beside those that all have."""
    optional = {"prompt": str, "metadata": (dict, NoneType), "round_id": int}
    return AnswersFile("answers.jsonl", "", keys={"question_id": (int, str), "text": str} | keys, optional=optional)


@dataclass(frozen=True)
class Images:
    """The folder, below the data, that the questions' images lie in."""

    path: str
    source: str
    key: str = "image"  # what a question calls its image
    gigabytes: float | None = None  # of the archive, as its source says


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a whole file of JSON.

    Raises:
        InputError: it cannot be written.
    """
    replace_file(path, json.dumps(content, indent=indent))


def asked(split: str, rows: int | None, source: str = EVAL_ZIP, **more: Any) -> dict[str, DataFile]:
    """A split whose questions are lines of JSON; ``more`` are further keys."""
    return {split: DataFile(f"{split}.jsonl", source, rows, ASKED | more)}
