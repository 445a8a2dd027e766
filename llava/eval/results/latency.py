"""How long the answers of a run took, as MFPruner's programs write it."""

import json
import statistics
import time
from pathlib import Path

from llava.eval.results.metadata import read_metadata
from llava.records import local_path, replace_file


def save_latency(answers_file: str | Path) -> Path | None:
    """Summarise the ``latency_ms`` of the answers in ``<stem>_latency.json`` beside them; None without any.

    A question's share of its batch counts, in milliseconds, whichever run answered it.

    Returns:
        The file written.

    Raises:
        InputError: the answers cannot be read, or the file cannot be written.
    """
    answers_file = local_path(answers_file)
    if not answers_file.stat().st_size:
        return None
    latencies = [entry["latency_ms"] for entry in read_metadata(answers_file) if "latency_ms" in entry]
    if not latencies:
        return None
    summary = {
        "count": len(latencies),
        "average_ms": statistics.fmean(latencies),
        "min_ms": min(latencies),
        "max_ms": max(latencies),
        "std_ms": statistics.pstdev(latencies),
        "median_ms": statistics.median(latencies),
        "total_ms": sum(latencies),
    }
    timestamp = time.strftime("%Y-%m-%d %H:%M:%S")
    path = answers_file.with_name(f"{answers_file.stem}_latency.json")
    content = {"statistics": summary, "individual_latencies": latencies, "timestamp": timestamp}
    replace_file(path, json.dumps(content, indent=1) + "\n")
    return path
