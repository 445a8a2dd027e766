"""The files of visitors: what each has uploaded, deleted when they leave."""

import threading
from collections import defaultdict
from pathlib import Path


class Visits:
    """Which files belong to which visits. Two visitors with the same picture share a file, until both have left.

    Args:
        folder: where uploads lie; nothing outside it is ever deleted.
        kept: files in it that belong to the page.
    """

    def __init__(self, folder: Path, kept: Path | None = None):
        self.folder, self.kept = folder.resolve(), None if kept is None else kept.resolve()
        self._files: dict[str, set[Path]] = defaultdict(set)
        self._lock = threading.Lock()

    def holds(self, path: str | Path) -> bool:
        """Whether a file lies in the folder, whatever links say."""
        return Path(path).resolve().is_relative_to(self.folder)

    def note(self, visit: str | None, path: str | Path) -> None:
        """A visitor has chosen a file."""
        if visit is not None and self.holds(path):
            with self._lock:
                self._files[visit].add(Path(path).resolve())

    def end(self, visit: str | None) -> None:
        """A visitor has left: delete what nobody else has chosen."""
        with self._lock:
            files = self._files.pop(visit, set()) if visit is not None else set()
            for path in files.difference(*self._files.values()):
                if self.kept is None or not path.is_relative_to(self.kept):
                    path.unlink(missing_ok=True)
