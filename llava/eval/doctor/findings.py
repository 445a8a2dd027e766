"""What looking at files finds, one line per thing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROBLEMS = ("missing", "wrong")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        status: ``ok``, ``note`` (worth knowing, nothing to repair), ``size`` (another number of rows than the
            release's, where that may be meant), ``missing`` or ``wrong``.
        what: the file or folder.
        message: what was found; for a problem also where to get the thing.
        source: the part of the message that says where to get it, with the size of what is there.
        gigabytes: that size; None where nobody says.
    """

    status: str
    what: str | Path
    message: str
    source: str = ""
    gigabytes: float | None = None

    @property
    def is_problem(self) -> bool:
        return self.status in PROBLEMS

    def __str__(self) -> str:
        return f"  {self.status:<8} {self.what}: {self.message}"


def can_go_on(findings: Iterable[Finding]) -> bool:
    """Whether none of the findings is a problem."""
    return not any(finding.is_problem for finding in findings)
