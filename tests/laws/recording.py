"""Recorded answers of the programs, and how they are held against what the programs answer now."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden"
PRUNERS = tuple("cdpruner divprune vispruner mfpruner random uniform cls_topk visionzip prumerge trim fastv".split())
"""Those that are recorded; one that comes later is held by its own tests."""
UNSTABLE = "(not stable)"
"""Stands in a recording where rounding decides, and is held against nothing."""


class Recording:
    """A JSON file of what was found, a line for each case.

    Args:
        path: the file.
        records: whether to keep what is found instead of holding it against the file.
    """

    def __init__(self, path: Path, records: bool):
        self.path = path
        self.records = records
        self.known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.found: dict[str, Any] = {}

    @classmethod
    def of(cls, known: dict[str, Any]) -> "Recording":
        """A recording that is no file's."""
        recording = cls(Path(os.devnull), records=False)
        recording.known = known
        return recording

    def check(self, case: str, found: Any, again: Iterable[Any] = ()) -> None:
        """Hold what was found against what is recorded, where that is stable.

        Args:
            again: the same under rounding errors, looked at in recording alone.
        """
        found = plain(found)
        if not self.records:
            assert masked(found, self.known[case]) == self.known[case]
            return
        for other in again:
            found = differing(found, plain(other))
        self.found[case] = found

    def write(self) -> None:
        """Put the new cases in the place of the old ones, and those that are new behind them."""
        cases = {**self.known, **self.found}
        lines = [f"{json.dumps(case)}: {json.dumps(found, ensure_ascii=False)}" for case, found in cases.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def plain(found: Any) -> Any:
    """What was found, as JSON gives it back; numbers to ten digits, behind which CPUs differ."""
    if isinstance(found, dict):
        return {str(key): plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(value) for value in found]
    return float(f"{found:.10g}") if isinstance(found, float) else found


def differing(found: Any, other: Any) -> Any:
    """``found`` with ``UNSTABLE`` for every entry that is another one in ``other``; lists of numbers are one entry."""
    if found == other or UNSTABLE in (found, other):
        return found if found == other else UNSTABLE
    if isinstance(found, dict) and isinstance(other, dict) and found.keys() == other.keys():
        return {key: differing(value, other[key]) for key, value in found.items()}
    if _is_list_of_entries(found) and _is_list_of_entries(other) and len(found) == len(other):
        return [differing(*pair) for pair in zip(found, other, strict=True)]
    return UNSTABLE


def _is_list_of_entries(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(entry, int | float) for entry in value)


def masked(found: Any, known: Any) -> Any:
    """``found`` with ``UNSTABLE`` wherever ``known`` has it."""
    if known == UNSTABLE:
        return UNSTABLE
    if isinstance(found, dict) and isinstance(known, dict):
        return {key: masked(value, known.get(key)) for key, value in found.items()}
    if isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        return [masked(*pair) for pair in zip(found, known, strict=True)]
    return found
