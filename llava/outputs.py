"""Outputs of a program that may be refused after they were opened: what is empty then goes away again."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llava.records import real_path


@contextmanager
def nothing_left(*paths: str | Path) -> Iterator[None]:
    """Where the block raises, remove those of ``paths``, and of their folders, that it has made and that are empty."""
    files = [real_path(path) for path in paths]
    new_files = [file for file in files if not file.exists()]
    new_folders = {folder for file in files for folder in file.parents if not folder.exists()}
    try:
        yield
    except BaseException:
        for file in new_files:
            if file.is_file() and not file.stat().st_size:
                file.unlink()
        for folder in sorted(new_folders, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # not empty, or not there
                folder.rmdir()
        raise
