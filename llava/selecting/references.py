"""What spectral budgets were measured for a checkpoint, in a file of its own beside the checkpoint's."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from llava.records import InputError, check_record, read_json, replace_file

FILE = "visual_budgets.json"
"""Name of the file in a checkpoint's folder."""
KEY = "erank_ref"
"""Its entry for spectral budgets: for each wanted number of tokens per tile, as text, an object with ``erank_ref``."""


def read_erank_refs(checkpoint: str | Path) -> dict[int, float]:
    """The ``erank_ref`` that was measured for each number of tokens per tile; none where there is no file.

    Args:
        checkpoint: its folder; the id of one that is elsewhere, and "", have none.

    Raises:
        InputError: the file is broken; names it.
    """
    path = Path(checkpoint).expanduser() / FILE
    if not str(checkpoint) or not path.is_file():
        return {}
    entries = check_record(read_json(path, dict), str(path), {}, {KEY: dict}).get(KEY, {})
    found = {}
    for tokens, entry in entries.items():
        where = f"{path}, {KEY} of {tokens}"
        value = check_record(entry, where, {KEY: (int, float)})[KEY]
        if not (tokens.isdecimal() and int(tokens) and isfinite(value) and value > 0):
            raise InputError(f"{where}: expected a number above 0 for a number of tokens, found {value!r}")
        found[int(tokens)] = float(value)
    return found


def store_erank_ref(checkpoint: str | Path, tokens: int, entry: Mapping[str, float | int | str]) -> Path:
    """Write what was measured for a number of tokens per tile, and leave what else the file says.

    Args:
        checkpoint: its folder.
        entry: with ``erank_ref``, and what else tells how it was measured.

    Returns:
        The file.

    Raises:
        InputError: no such folder, or the file is broken or cannot be written.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        raise InputError(f"{checkpoint} is no folder: nothing can be stored beside it; give --erank_ref instead")
    path = folder / FILE
    known = read_json(path, dict) if path.is_file() else {}
    read_erank_refs(folder)
    entries = {**known.get(KEY, {}), str(tokens): dict(entry)}
    known[KEY] = {name: entries[name] for name in sorted(entries, key=int)}
    replace_file(path, json.dumps(known, indent=1) + "\n")
    return path
