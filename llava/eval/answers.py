"""The answers file of a run: written by one run at a time, completed by the next where a run was cut short.

The answers themselves are in LLaVA's format. Beside ``A.jsonl`` lies ``A.jsonl.run``, which says what the answers
depend on, and where several processes answer, or one does in an order of its own, the folder ``A`` holds one file of
each, ``rank00003.jsonl``, until all are done and merged in question order.
"""

import fcntl
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from llava.eval.records import InputError, check_writable, read_jsonl, replace_file

logger = logging.getLogger(__name__)

Write = Callable[[dict[str, Any]], None]
WriteAnswer = Callable[[int, dict[str, Any]], None]
"""Takes a question's index and the line that answers it."""
PART_KEYS = {"index": int, "answer": dict}
WAYS_OUT = "--overwrite starts anew, another --answers-file keeps them"


@contextmanager
def appending(path: str | Path) -> Iterator[Write]:
    """Open a file for records, one line each, that are on disk as soon as they are written.

    Raises:
        InputError: the file cannot be written, as on a full disk; what it holds then ends with a whole line.
    """
    path = check_writable(path)
    with path.open("ab", buffering=0) as file:
        _lock(file, path)

        def write(record: dict[str, Any]) -> None:
            end = path.stat().st_size
            rest = memoryview(f"{json.dumps(record)}\n".encode())
            try:
                while rest:  # a disk that is nearly full takes a part of it
                    rest = rest[file.write(rest) :]
            except OSError as error:
                file.truncate(end)
                raise InputError(f"cannot write {path}: {error.strerror}; a rerun continues after its end") from error

        yield write


def _lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes away until this one closes the file or dies.

    A record lock is not inherited, so worker processes that outlive a killed run for seconds do not hold it.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise InputError(f"{path}: another process is writing here") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that only one run writes it", path, error.strerror)


def _repair(path: Path) -> None:
    """Drop a last line that was cut short."""
    with path.open("r+b") as file:
        _lock(file, path)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


class AnswersFile:
    """What is on disk of the answers to a sequence of questions.

    Args:
        path: the answers file.
        expected: for every question the keys and values by which its line is recognised.
        settings: everything the answers depend on; a run with other settings does not continue this one.
    """

    def __init__(self, path: str | Path, expected: Sequence[dict[str, Any]], settings: dict[str, Any]):
        self.path = Path(path).expanduser()
        self.expected = expected
        self.settings = json.loads(json.dumps(settings))
        self.header = self.path.with_name(f"{self.path.name}.run")
        self.folder = self.path.with_suffix("") if self.path.suffix else self.path.with_name(f"{self.path.name}.parts")

    @contextmanager
    def claim(self, overwrite: bool = False) -> Iterator[list[int]]:
        """Keep other runs away, repair what was cut short, and yield which questions have no answer yet.

        Args:
            overwrite: drop the answers there are.

        Raises:
            InputError: another run is at it; there are answers to other questions, or of other settings.
        """
        check_writable(self.path)
        with check_writable(self.header).open("r+b", buffering=0) as header:
            _lock(header, self.header)
            if overwrite or not (self.path.stat().st_size or self.parts()):
                self._start(header)
            self._check_settings(header)
            for path in (self.path, *self.parts()):
                _repair(path)
            yield self._missing()

    @contextmanager
    def writer(self, rank: int | None) -> Iterator[WriteAnswer]:
        """Open the place for answers and yield the function that writes one.

        Args:
            rank: of the process, whose answers come in any order; None for one that writes all that are missing, in
                question order.
        """
        if rank is None:
            with appending(self.path) as write:
                yield lambda index, record: write(record)
        else:
            with appending(self.folder / f"rank{rank:05}.jsonl") as write:
                yield lambda index, record: write({"index": index, "answer": record})

    def finish(self) -> None:
        """Check that every question is answered, and merge what several processes wrote.

        Raises:
            InputError: answers are missing, or the merged file cannot be written; nothing is lost then.
        """
        if missing := self._missing():
            raise InputError(
                f"{self.path}: {len(missing)} of {len(self.expected)} answers are missing, the first of them to "
                f"question number {missing[0] + 1}; a rerun completes them"
            )
        if parts := self.parts():
            answered = self._answered()
            replace_file(self.path, "".join(f"{json.dumps(answered[i])}\n" for i in range(len(self.expected))))
            self._remove(parts)

    def parts(self) -> list[Path]:
        """The files of the processes, not merged yet."""
        return sorted(self.folder.glob("rank[0-9]*.jsonl"))

    def _remove(self, parts: Sequence[Path]) -> None:
        for part in parts:
            part.unlink()
        with suppress(OSError):  # other files, such as logs, may lie in the folder
            self.folder.rmdir()

    def _start(self, header: IO[bytes]) -> None:
        """Drop all answers, then say what the new ones will depend on."""
        self._remove(self.parts())
        try:
            self.path.open("w").close()
            header.truncate()
            header.write(f"{json.dumps({'settings': self.settings}, indent=1)}\n".encode())
        except OSError as error:
            raise InputError(f"cannot write {self.header}: {error.strerror}") from error

    def _check_settings(self, header: IO[bytes]) -> None:
        header.seek(0)
        try:
            settings = json.load(header)["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.header} does not say how the answers in {self.path} were made: {WAYS_OUT}"
            ) from error
        names = dict.fromkeys([*settings, *self.settings])
        changed = [name for name in names if settings.get(name) != self.settings.get(name)]
        if changed:
            values = [f"{n}: {json.dumps(settings.get(n))}, now {json.dumps(self.settings.get(n))}" for n in changed]
            raise InputError(f"{self.path} holds answers of another run: {'; '.join(values)}. {WAYS_OUT}")

    def _missing(self) -> list[int]:
        answered = self._answered()
        return [index for index in range(len(self.expected)) if index not in answered]

    def _answered(self) -> dict[int, dict[str, Any]]:
        """The lines on disk by the index of their question."""
        lines = read_jsonl(self.path, {}) if self.path.stat().st_size else []
        answered = {}
        for path in self.parts():
            for number, line in enumerate(read_jsonl(path, PART_KEYS) if path.stat().st_size else [], 1):
                answered[line["index"]] = self._recognise(line["index"], line["answer"], f"{path}, line {number}")
        for index, line in enumerate(lines):
            answered[index] = self._recognise(index, line, f"{self.path}, line {index + 1}")
        return answered

    def _recognise(self, index: int, line: dict[str, Any], where: str) -> dict[str, Any]:
        """Return ``line`` if it answers question ``index``."""
        if index >= len(self.expected):
            raise InputError(f"{where}: there are only {len(self.expected)} questions. {WAYS_OUT}")
        for key, value in self.expected[index].items():
            if line.get(key) != value:
                found = json.dumps(line.get(key))
                wanted = json.dumps(value)
                raise InputError(f"{where} answers another question: {key} is {found}, not {wanted}. {WAYS_OUT}")
        return line
