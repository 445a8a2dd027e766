"""Benchmarks that come as tables: tab-separated text, and the sheets their servers take; with the extra ``eval``."""

import importlib
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from llava.records import InputError, local_path, read_utf8, replace_file

logger = logging.getLogger(__name__)

CELL_CHARACTERS = 32767
"""The most that a cell of a sheet holds."""
BLANKS = re.compile(r"[\x0b\x0c\x1c-\x1f]")
UNWRITABLE = re.compile(r"[\x00-\x08\x0e-\x1b\ud800-\udfff\ufffe\uffff]")


def import_extra(name: str) -> ModuleType:
    """A module of the extra ``eval``; programs that need one call this before their work, too.

    Raises:
        InputError: it is not installed, or broken; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # one built for another NumPy raises ValueError or AttributeError
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise InputError(
            f"this needs {name.partition('.')[0]}{reason}: pip install '.[eval]' in a clone of this project"
        ) from error


def read_tsv(path: str | Path, required: Collection[str]) -> Any:
    """Read a table of strings; only empty cells are missing, so an option called ``None`` or ``NA`` stays an option.

    Args:
        path: tab-separated, with a header line.
        required: columns it must have.

    Returns:
        A DataFrame of strings, NaN where a cell is empty.

    Raises:
        InputError: the file cannot be read, has no rows, lacks a column or has one twice, or rows are longer than the
            header.
    """
    pandas = import_extra("pandas")
    content, path = read_utf8(path), local_path(path)
    try:
        table = pandas.read_table(BytesIO(content), dtype=str, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise InputError(f"{path}: not a tab-separated table ({error})") from error
    header = re.split(rb"[\r\n]", content.lstrip(b"\r\n"), maxsplit=1)[0].decode().split("\t")
    if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
        raise InputError(f"{path}: more than one column {', '.join(twice)}")
    if lacking := [name for name in required if name not in table.columns]:
        raise InputError(f"{path}: no column {', '.join(lacking)}; its columns are {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no rows")
    if not isinstance(table.index, pandas.RangeIndex):  # pandas takes the cells in front for names of the rows
        raise InputError(f"{path}: not a tab-separated table (rows have more cells than the header)")
    return table


def write_xlsx(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[int | str | None]]) -> None:
    """Write a sheet in which every text is text, whatever it begins with, and every number a number.

    What ``.xlsx`` cannot hold is told in the log, with the first cell that it befell: control characters are left out
    (a space takes the place of those that separate words), carriage returns become newlines, half of a surrogate pair
    becomes U+FFFD, and texts are cut at 32767 characters.

    Raises:
        InputError: openpyxl is not installed, or the file cannot be written.
    """
    openpyxl = import_extra("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    befallen: dict[str, list[str]] = defaultdict(list)
    for number, row in enumerate([columns, *rows], 1):
        cells = []
        for name, value in zip(columns, row, strict=True):
            if isinstance(value, str):
                value, faults = _writable(value)
                for fault in faults:
                    befallen[fault].append(f"row {number}, column {name}")
            cells.append(openpyxl.cell.WriteOnlyCell(sheet, value))
            if isinstance(value, str):
                cells[-1].data_type = "s"  # neither a formula nor an error code
        sheet.append(cells)
    content = BytesIO()
    book.save(content)
    replace_file(path, content.getvalue())
    for fault, places in befallen.items():
        logger.warning("%s: %s in %d cells, the first of them %s", path, fault, len(places), places[0])


def _writable(text: str) -> tuple[str, list[str]]:
    """What a cell can hold of a text, and what befell it."""
    faults = []
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        faults.append("carriage returns become newlines")
    written = UNWRITABLE.sub(lambda mark: "\ufffd" if "\ud800" <= mark[0] <= "\udfff" else "", BLANKS.sub(" ", text))
    if written != text:
        faults.append("characters that .xlsx cannot hold are left out or replaced")
    if len(written) > CELL_CHARACTERS:
        written = written[:CELL_CHARACTERS]
        faults.append(f"texts are cut at the {CELL_CHARACTERS} characters that a cell holds")
    return written, faults
