"""When, where and with which software results were made, as answers and what lies beside them note it."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from llava.records import InputError, check_record, read_json

ENVIRONMENT = {"cpu": str, "gpu": (str, NoneType), "threads": int, "date": str}
VERSIONS = ("llava", "torch", "transformers", "python")
NAMES = ("date", "checkpoint files", "hardware", "threads", "device", "precision", "attention", "commit", *VERSIONS)


def made_with(answers: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how answers were made, by ``NAMES``; days are those of UTC.

    Args:
        answers: their file, beside which a run notes the machine; the day is the file's where it did not.
        metadata: of one of them.
    """
    run = metadata.get("run", {})
    place = _noted(answers.with_name(f"{answers.name}.run"))
    device = str(run.get("device", ""))
    found = {
        "date": place.get("date", "")[:10] or _day_of(answers),
        "checkpoint files": run.get("files", {}).get("checkpoint"),
        "hardware": (place.get("gpu") if device.startswith("cuda") else None) or place.get("cpu"),
        "threads": place.get("threads"),
        "device": device,
        "precision": run.get("dtype"),
        "attention": run.get("attention_implementation") or run.get("attention"),
        "commit": run.get("commit"),
    } | {name: run.get("versions", {}).get(name) for name in VERSIONS}
    return {name: str(value) for name, value in found.items() if value}


def _noted(header: Path) -> dict[str, Any]:
    """What a run noted of the machine; empty where it did not, as runs of older versions."""
    try:
        noted = read_json(header, dict).get("environment", {})
        return check_record(noted, str(header), {}, ENVIRONMENT)
    except InputError:
        return {}


def _day_of(file: Path) -> str:
    try:
        written = file.stat().st_mtime
    except OSError:
        return ""
    return datetime.datetime.fromtimestamp(written, datetime.timezone.utc).date().isoformat()


def summarized(made: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """A name of ``NAMES`` and its value in every line; where results differ in it, each with how many have it."""
    lines = []
    for name in NAMES:
        values = Counter(each.get(name, "not noted") for each in made)
        if set(values) == {"not noted"}:
            continue
        counted = [f"{value} ({count} of {len(made)} results)" for value, count in sorted(values.items())]
        lines.append([name, next(iter(values)) if len(values) == 1 else "; ".join(counted)])
    return lines


def differing(made: Sequence[Mapping[str, str]]) -> list[str]:
    """What of that which times depend on is not the same in all."""
    decisive = ("hardware", "threads", "device", "precision", "attention", "commit", "torch", "transformers")
    return [name for name in decisive if len({each.get(name) for each in made}) > 1]
