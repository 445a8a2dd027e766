"""Files of text as people have them, read strictly: JSON, and one JSON object per line.

Questions and answers are identified by position, never by ``question_id``. Whatever is wrong with a file becomes one
``InputError`` that names it, with the line where there is one.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import GenericAlias
from typing import Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SHOWN = 80  # characters of a wrong value that an error repeats

Types = Mapping[str, type | tuple[type, ...] | GenericAlias]
"""Keys, and of what types their values may be; ``list[str]`` is a list of nothing but texts."""


class InputError(ValueError):
    """Something the user can repair; the programs print it without a traceback."""


def local_path(path: str | Path) -> Path:
    """A path with ``~`` filled in.

    Raises:
        InputError: ``~NAME`` of nobody on this machine.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: {error}") from error


def real_path(path: str | Path) -> Path:
    """``local_path`` with links followed, the last one included, so that a link stays when its file is replaced."""
    path = local_path(path)
    with suppress(OSError, ValueError):  # ValueError: a name that no file can have
        return Path(os.path.realpath(path))
    return path


def read_utf8(path: str | Path) -> bytes:
    """The content of a file of text, in UTF-8, without a byte-order mark at its beginning.

    Raises:
        InputError: the file cannot be read, or holds something else; names file and line.
    """
    path = local_path(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}, line 1: not UTF-8 but UTF-16; save it as UTF-8")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        fault = f"not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8"
        raise InputError(f"{path}, line {_line(content, error.start)}: {fault}") from error
    if (position := content.find(0)) >= 0:
        raise InputError(f"{path}, line {_line(content, position)}: a NUL byte, so damaged, or not UTF-8")
    return content.removeprefix(BYTE_ORDER_MARK)


def _line(content: bytes | str, position: int) -> int:
    before = content[:position]
    return (before.count(b"\n") if isinstance(before, bytes) else before.count("\n")) + 1


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file of text, whatever ends them; see ``read_utf8``.

    Only ``\\n`` and ``\\r`` end a line: other separators of Unicode may stand inside a text.
    """
    return [line.removeprefix(BYTE_ORDER_MARK).decode() for line in read_utf8(path).splitlines()]


def read_json(path: str | Path, kind: type | tuple[type, ...]) -> Any:
    """Read a JSON file that holds one object (``dict``) or one array (``list``), or either.

    Raises:
        InputError: no such file, no JSON (see ``parse_json``), or another kind; names the file.
    """
    value = parse_json(read_utf8(path).decode(), str(local_path(path)))
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else "array" if kind is list else "object or array"
        raise InputError(f"{local_path(path)}: expected a JSON {wanted}")
    return value


def read_jsonl(path: str | Path, required: Types, optional: Types | None = None) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; blank lines are skipped.

    Args:
        path: the file, UTF-8.
        required: keys that every object must have, with the types their values may be of.
        optional: the same for keys that it may have.

    Raises:
        InputError: no such file, no object in it, or a line that is broken, lacks a key or has a value of another
            type; names file and line.
    """
    path = local_path(path)
    records = [
        check_record(parse_json(line, where := f"{path}, line {number}"), where, required, optional)
        for number, line in enumerate(read_lines(path), 1)
        if line.strip()
    ]
    if not records:
        raise InputError(f"{path} is empty: expected one JSON object per line")
    return records


class _BadToken(ValueError):
    """A thing that Python reads and JSON does not allow; ``pattern`` finds it again."""

    def __init__(self, message: str, pattern: str):
        super().__init__(message)
        self.pattern = pattern


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _BadToken(f"the key {key!r} stands twice in one object", rf"{re.escape(json.dumps(key))}\s*:")
    return record


def _no_number(token: str) -> float:
    raise _BadToken(f"{token} is no number", rf"(?<![\w\"]){re.escape(token)}\b")


def _finite(token: str) -> float:
    value = float(token)
    return value if math.isfinite(value) else _no_number(token)


def _integer(token: str) -> int:
    """An integer that a float can stand for, too: means and sums are floats."""
    if len(token) > SHOWN and math.isinf(float(token)):
        raise _BadToken(f"a number of {len(token)} digits", re.escape(token))
    return int(token)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite, parse_int=_integer
)


def parse_json(text: str, where: str) -> Any:
    """The value that a JSON text stands for.

    Args:
        where: what the error calls the text, such as its file and line.

    Raises:
        InputError: no JSON, a number that is none (NaN, infinities) or beyond what a float holds, a key twice in one
            object, or half of a surrogate pair, which is no character and cannot be written to a file or given to a
            tokenizer.
    """
    try:
        value = _DECODER.decode(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            _check_characters(value)
    except _BadToken as error:
        found = re.search(error.pattern, text)
        place = f" in line {_line(text, found.start())}" if found and "\n" in text.strip() else ""
        raise InputError(f"{where}: not valid JSON ({error}{place})") from error
    except RecursionError as error:
        raise InputError(f"{where}: not valid JSON (brackets within brackets, too deep)") from error
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    return value


def _check_characters(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(text[error.start]):04x}"
        raise _BadToken(f"{escape} is half of a surrogate pair", f"(?i){re.escape(escape)}") from error


def check_record(record: Any, where: str, required: Types, optional: Types | None = None) -> dict[str, Any]:
    """Return ``record`` if it is an object with the ``required`` keys, each with a value of its types.

    True and False are no numbers here: ``bool`` has to be named.

    Args:
        where: what the error calls it, such as its file and line.
        optional: keys that may be missing, with the types of their values.

    Raises:
        InputError: not an object, a key is missing or a value is of another type.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for key in required:
        if key not in record:
            raise InputError(f"{where}: the key {key!r} is missing; needed are {', '.join(required)}")
    for key, types in (dict(optional or {}) | dict(required)).items():
        if key in record and not _is_of(record[key], types):
            raise InputError(f"{where}: the value of {key!r} is of the wrong type: {_shown(record[key])}")
    return record


def _is_of(value: Any, types: type | tuple[type, ...] | GenericAlias) -> bool:
    if isinstance(types, GenericAlias):
        return isinstance(value, list) and all(_is_of(entry, types.__args__) for entry in value)
    types = types if isinstance(types, tuple) else (types,)
    return isinstance(value, types) and not (isinstance(value, bool) and not {bool, object} & {*types})


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def check_writable(path: str | Path) -> Path:
    """Make the parent folders of ``path`` and open it for appending once, so that a bad path shows before the work.

    What the file holds already stays until the first answer is written.

    Raises:
        InputError: the folder cannot be made or the file cannot be written.
    """
    path = local_path(path)
    try:
        real_path(path).parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    return path


def check_output(path: str | Path) -> Path:
    """As ``check_writable``, but a file that was not there is not left behind, lest a refused run leave it empty."""
    was_there = local_path(path).exists()
    checked = check_writable(path)
    if not was_there:
        real_path(checked).unlink(missing_ok=True)
    return checked


def replace_file(path: str | Path, content: str | bytes) -> None:
    """Write a whole file, its folders included; if that fails, what it held before stays.

    Text is written as UTF-8; half of a surrogate pair, which has no bytes there, as its escape ``\\udxxx``. Of a
    link that is written which it leads to; what is no file, such as ``/dev/stdout``, is written into.

    Raises:
        InputError: the folder cannot be made or the file cannot be written, as on a full disk.
    """
    path = local_path(path)
    target = real_path(path)
    part = target.parent / f"{target.name}.part"
    content = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(content)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(target)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            part.unlink()
        raise InputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


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
