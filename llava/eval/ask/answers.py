"""The answers file of a run: written by one run at a time, completed by the next where a run was cut short.

The answers themselves are in LLaVA's format. Beside ``A.jsonl`` lies ``A.jsonl.run``, which says what the answers
depend on and where the run began, and where several processes answer, or one does in an order of its own, the folder
``A`` holds one file of each, ``rank00003.jsonl``, until all are done and merged in question order.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import IO, Any

from llava.eval.ask.identity import Files, differences, of_file
from llava.eval.ask.locks import lock
from llava.outputs import nothing_left
from llava.provenance import environment
from llava.records import InputError, check_record, check_writable, local_path, read_jsonl, replace_file

logger = logging.getLogger(__name__)

Write = Callable[[dict[str, Any]], None]
WriteAnswer = Callable[[int, dict[str, Any]], None]
"""Takes a question's index and the line that answers it."""
PART_KEYS = {"index": int, "answer": dict}
WAYS_OUT = "--overwrite starts anew, another --answers-file keeps them"
PLACES = {"model_path": "checkpoint", "model_base": "base", "text_tower": "text tower"}
"""Settings that say where something lies, with the part of ``Files`` that says what it is."""
COMPARED_MEDIA = 1000
"""Images or videos that a run which goes on looks at again: so many, evenly spread, of those behind the answers."""


@contextmanager
def appending(path: str | Path) -> Iterator[Write]:
    """Open a file for records, one line each, that are on disk as soon as they are written.

    A block that raises before it has written one leaves no file.

    Raises:
        InputError: the file cannot be written, as on a full disk; what it holds then ends with a whole line.
    """
    path = local_path(path)
    with nothing_left(path), check_writable(path).open("ab", buffering=0) as file:
        lock(file, path)

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


def _identity(file: Path) -> str | None:
    try:
        return of_file(file)
    except OSError:
        return None


def _repair(path: Path) -> None:
    """Drop a last line that was cut short."""
    with path.open("r+b") as file:
        lock(file, path)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


class AnswersFile:
    """What is on disk of the answers to a sequence of questions.

    Args:
        path: the answers file.
        expected: for every question the keys and values by which its line is recognised.
        settings: everything the answers depend on; a run with other settings does not continue this one.
        files: what the files behind ``PLACES`` hold; where it is known of both runs, their places may differ.
        usual: what a setting of None means, where another value says the same.
        media: for every question the file it shows, or None; its line may hold the identity under ``media`` of its
            ``metadata``, and another file in its place does not continue the run either.
    """

    def __init__(
        self,
        path: str | Path,
        expected: Sequence[dict[str, Any]],
        settings: dict[str, Any],
        files: Files | None = None,
        usual: Mapping[str, Any] | None = None,
        media: Sequence[Path | None] = (),
    ):
        self.path = local_path(path)
        self.expected = expected
        self.settings = json.loads(json.dumps(settings))
        self.files = files
        self.usual = usual or {}
        self.media = media
        self.header = self.path.with_name(f"{self.path.name}.run")
        self.folder = self.path.with_suffix("") if self.path.suffix else self.path.with_name(f"{self.path.name}.parts")

    @contextmanager
    def claim(self, overwrite: bool = False) -> Iterator[list[int]]:
        """Keep other runs away, repair what was cut short, and yield which questions have no answer yet.

        A run that is refused, or fails before its first answer, leaves nothing.

        Args:
            overwrite: drop the answers there are.

        Raises:
            InputError: another run is at it; there are answers to other questions, of other settings or other files.
        """
        is_new = not (self.header.exists() or self.path.exists())
        with nothing_left(self.header):
            check_writable(self.path)
            with check_writable(self.header).open("r+b", buffering=0) as header:
                self._lock_header(header)
                try:
                    yield self._claimed(header, overwrite)
                except BaseException:
                    if is_new and not (self.path.stat().st_size or self.parts()):
                        header.truncate(0)
                        self.path.unlink()
                    raise

    def _claimed(self, header: IO[bytes], overwrite: bool) -> list[int]:
        if overwrite or not (self.path.stat().st_size or self.parts()):
            self._start(header)
        moved = self._check_settings(header)
        for path in (self.path, *self.parts()):
            _repair(path)
        answered = self._answered()
        self._check_media(answered, moved)
        return [index for index in range(len(self.expected)) if index not in answered]

    def _lock_header(self, header: IO[bytes]) -> None:
        """Lock, and make sure that the run before has not just removed the file that was opened."""
        lock(header, self.header)
        if not self.header.exists() or not os.path.samestat(os.fstat(header.fileno()), self.header.stat()):
            raise InputError(f"{self.header}: another process is writing here")

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
            head = {"settings": self.settings} | ({} if self.files is None else {"files": self.files})
            head["environment"] = environment()  # of the run that begins; who goes on may do so elsewhere
            header.write(f"{json.dumps(head, indent=1)}\n".encode())
        except OSError as error:
            raise InputError(f"cannot write {self.header}: {error.strerror}") from error

    def _check_settings(self, header: IO[bytes]) -> str:
        """Refuse to go on with other settings or files.

        Returns:
            How the folder of the images has changed, "" if it has not; what lies in it may be the same.
        """
        header.seek(0)
        try:
            stored = json.load(header)
            settings, files = stored["settings"], stored.get("files")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.header} does not say how the answers in {self.path} were made: {WAYS_OUT}"
            ) from error
        changed = self._changed(settings)
        moved = changed.pop("image_folder", "") if files is not None and self.media else ""
        if files is None and self.files is not None:
            logger.warning("%s does not say what its files held: they are known by name alone", self.header)
        known = [part for part in self.files or () if part in (files or ())]
        others = [f"{part}, {each}" for part in known for each in differences(files[part], self.files[part])]
        same = [] if others else [place for place, part in PLACES.items() if part in known]
        faults = [text for name, text in changed.items() if name not in same] + others
        if faults:
            raise InputError(f"{self.path} holds answers of another run: {'; '.join(faults)}. {WAYS_OUT}")
        return moved

    def _changed(self, settings: dict[str, Any]) -> dict[str, str]:
        """In words, by name, which settings are not those of this run."""
        changed = {}
        for name in dict.fromkeys([*settings, *self.settings]):
            before, now = settings.get(name), self.settings.get(name)
            meant = [self.usual.get(name) if value is None else value for value in (before, now)]
            if meant[0] != meant[1]:
                changed[name] = f"{name}: {json.dumps(before)}, now {json.dumps(now)}"
        return changed

    def _check_media(self, answered: dict[int, dict[str, Any]], moved: str) -> None:
        """Refuse to go on where the answers were given about other images or videos than there are now.

        Files that are gone are no fault, unless the folder is another one, ``moved``.
        """
        if not self.media:
            return
        noted = {index: (answered[index].get("metadata") or {}).get("media") for index in sorted(answered)}
        known = [index for index, identity in noted.items() if identity and self.media[index]]
        for index in known[:: -(-len(known) // COMPARED_MEDIA) or 1]:
            now = _identity(self.media[index])
            if now != noted[index] and (now or moved):
                where = f"question number {index + 1}, {self.media[index]}: {json.dumps(noted[index])}"
                faults = [*filter(None, [moved]), f"{where}, now {json.dumps(now)}"]
                raise InputError(f"{self.path} holds answers of another run: {'; '.join(faults)}. {WAYS_OUT}")
        if moved and not known:
            raise InputError(f"{self.path} holds answers of another run: {moved}. {WAYS_OUT}")

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
        check_record(line, where, {}, {"metadata": (dict, NoneType)})
        if index >= len(self.expected):
            raise InputError(f"{where}: there are only {len(self.expected)} questions. {WAYS_OUT}")
        for key, value in self.expected[index].items():
            if line.get(key) != value:
                found = json.dumps(line.get(key))
                wanted = json.dumps(value)
                raise InputError(f"{where} answers another question: {key} is {found}, not {wanted}. {WAYS_OUT}")
        return line
