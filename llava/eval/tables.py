"""Benchmarks that come as tables: tab-separated text, with pandas from the extra ``eval``."""

import importlib
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from llava.eval.records import InputError


def import_pandas() -> ModuleType:
    """pandas; see ``_import_extra``."""
    return _import_extra("pandas")


def import_openpyxl() -> ModuleType:
    """openpyxl, with which pandas writes ``.xlsx``; see ``_import_extra``."""
    return _import_extra("openpyxl")


def _import_extra(name: str) -> ModuleType:
    """A module of the extra ``eval``.

    Raises:
        InputError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this needs {name}: pip install 'llava[eval]'") from error


def read_tsv(path: str | Path, required: Collection[str], without: Collection[str] = ()) -> Any:
    """Read a table of strings; only empty cells are missing, so an option called ``None`` or ``NA`` stays an option.

    Args:
        path: tab-separated, with a header line.
        required: columns it must have.
        without: columns to leave out, such as images.

    Returns:
        A DataFrame of strings, NaN where a cell is empty.

    Raises:
        InputError: the file cannot be read, has no rows, or lacks a column.
    """
    pandas = import_pandas()
    path = Path(path).expanduser()
    try:
        table = pandas.read_table(path, dtype=str, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a tab-separated table ({error})") from error
    if lacking := [name for name in required if name not in table.columns]:
        raise InputError(f"{path}: no column {', '.join(lacking)}; its columns are {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no rows")
    return table.drop(columns=list(without), errors="ignore")
