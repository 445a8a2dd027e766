"""Question and answer files: one JSON object per line, identified by position, never by ``question_id``."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something the user can repair; the programs print it without a traceback."""


def read_jsonl(path: str | Path, required: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; blank lines are skipped.

    Args:
        path: the file, UTF-8.
        required: keys that every object must have, with the types their values may be of.

    Raises:
        InputError: no such file, no object in it, or a line that is broken, lacks a key or has a value of another
            type; names file and line.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    records = [_parse(line, f"{path}, line {number}", required) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise InputError(f"{path} is empty: expected one JSON object per line")
    return records


def _parse(line: bytes, where: str, required: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    return check_record(record, where, required)


def check_record(record: Any, where: str, required: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Return ``record`` if it is an object with the ``required`` keys, each with a value of its types.

    Args:
        where: what the error calls it, such as its file and line.

    Raises:
        InputError: not an object, a key is missing or its value is of another type.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for key, types in required.items():
        if key not in record:
            raise InputError(f"{where}: the key {key!r} is missing; needed are {', '.join(required)}")
        if not isinstance(record[key], types):
            raise InputError(f"{where}: the value of {key!r} is of the wrong type: {json.dumps(record[key])}")
    return record


def check_writable(path: str | Path) -> Path:
    """Make the parent folders of ``path`` and open it for appending once, so that a bad path shows before the work.

    What the file holds already stays until the first answer is written.

    Raises:
        InputError: the folder cannot be made or the file cannot be written.
    """
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path


def replace_file(path: str | Path, content: str | bytes) -> None:
    """Write a whole file, its folders included; if that fails, what it held before stays.

    Raises:
        InputError: the folder cannot be made or the file cannot be written, as on a full disk.
    """
    path = Path(path).expanduser()
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def split_list(items: Sequence, n: int) -> list[Sequence]:
    """Cut ``items`` into exactly ``n`` consecutive chunks of ceil(len / n); trailing chunks may be short or empty."""
    size = math.ceil(len(items) / n)
    return [items[k * size : (k + 1) * size] for k in range(n)]


def get_chunk(items: Sequence, n: int, k: int) -> Sequence:
    """Chunk ``k`` of ``n``, counted from 0.

    Raises:
        InputError: fewer than one chunk, or no chunk ``k``; names the flags.
    """
    if n < 1:
        raise InputError(f"--num-chunks must be at least 1, got {n}")
    if not 0 <= k < n:
        raise InputError(f"--chunk-idx must lie between 0 and {n - 1} for --num-chunks {n}, got {k}")
    return split_list(items, n)[k]
