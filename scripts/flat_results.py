"""Write every result of ``docs/results`` as one table: ``python scripts/flat_results.py``, a line for each number.

Accuracies are in percent. ``low`` and ``high`` are the ends of the 95 % interval, of a standard error 1.96 of them to
either side; ``n`` is how many questions, or repetitions of a time, a value is of. A check that passed is 1.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.command import run_program

FOLDER = Path(__file__).parents[1] / "docs" / "results"
TABLE = "results.csv"
COLUMNS = (
    *("source", "suite", "model", "pruner", "budget", "options", "metric", "value", "n", "low", "high", "noisy"),
    *("hardware", "versions", "commit", "date"),
)
OPTIONS = (
    *("setting", "variant", "question", "graphs", "dtype", "positions", "prune_layer", "contextual_ratio", "seed", "N"),
    *("B", "D", "new_tokens", "layers", "layers_run", "file", "test", "label", "target"),
)
"""Entries of a row that say how it was measured. A budget is ``visual_token_num`` or one of the names behind it."""
BUDGETS = ("visual_token_num", "T", "visual")
COUNTS = ("questions", "reps", "n")
NAMES = ("suite", "model", "method", "pruner", "noisy", "ci95", "stderr", "floor", "source", "above_random_stderr")
"""Entries that have a column of their own, or go with another."""
SETTING = re.compile(r"vtn_(\d+)_?(.*)")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=FOLDER, metavar="FOLDER", help="where results are, and go")
    return parser


def write(args: argparse.Namespace) -> None:
    """Write the table beside the results."""
    (args.results_dir / TABLE).write_text(table(args.results_dir), encoding="utf-8")


def table(folder: Path) -> str:
    """The table of all results in a folder, as text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        writer.writerows({"source": path.name, **line} for line in lines(document))
    return text.getvalue()


def lines(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every number of one file."""
    run = next(document[name] for name in ("meta", "environment", "run") if name in document)
    place = surroundings(run)
    for suite, model, row in rows(document):
        budget = next((name for name in BUDGETS if name in row), "")
        count = next((name for name in COUNTS if name in row), "")
        common = {"suite": suite, "model": model, "pruner": row.get("pruner", row.get("method", "")), **place}
        common |= {"budget": row.get(budget, ""), "n": row.get(count, ""), "noisy": flag(row.get("noisy", ""))}
        given = {name: row[name] for name in OPTIONS if row.get(name) not in (None, "", "-")}
        common["options"] = "; ".join(f"{name} {shown(value)}" for name, value in given.items())
        for metric, value in row.items():
            if metric not in (*OPTIONS, *NAMES, budget, count):
                yield from ({**common, **number} for number in numbers(metric, value, row))


def surroundings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Hardware, versions, commit and date, as far as a file says them."""
    card = run.get("card", {}).get("name") or run.get("gpu")
    threads = f", threads: {run['threads']}" if "threads" in run else ""
    hardware = card or f"{run.get('cpu') or 'CPU'}{threads}"
    versions = "; ".join(f"{name} {version}" for name, version in run["versions"].items())
    return {"hardware": hardware, "versions": versions, "commit": run["commit"], "date": run.get("date", "")[:10]}


def rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Rows of a file, each with its suite and the model."""
    drawn = "7b of random weights"
    for row in document.get("rows", ()):
        suite = row.get("suite", "shapes")
        yield suite, row.get("model") or ("llava-shapes" if suite == "shapes" else drawn), row
    for row in document.get("prefill", ()):
        yield "prefill", drawn, of_prompt(row)
    for name, part in document.get("parts", {}).items():
        for row in part["rows"]:
            model = row.get("model") or ("" if name in ("golden", "tests") else drawn)
            yield row.get("suite", name), model, of_prompt(row)
    for goal in document.get("goals", ()):
        others = {name: value for name, value in goal.items() if name not in ("goal", "value")}
        yield "goals", drawn, {goal["goal"]: goal["value"], **others}
    for each in document.get("pays", ()):
        values = {f"{each['group']}: {name}": each[name] for name in ("before", "after")}
        yield "pays", drawn, {"label": each["label"], **values}
    for page in document.get("tables", ()):
        for row in page["rows"]:
            yield "shapes", page["checkpoint"], of_table(row, document["questions"])


def of_prompt(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row about reading a prompt calls its length ``n``, which elsewhere is a count."""
    return {"prompt_tokens" if name == "n" and "reps" in row else name: value for name, value in row.items()}


def of_table(row: Mapping[str, Any], questions: int) -> dict[str, Any]:
    """A row of a table of methods, with its setting told apart and the numbers of its one benchmark."""
    found = row["numbers"]["shapes"]
    budget, options = match.groups() if (match := SETTING.fullmatch(row["setting"])) else ("", row["setting"])
    flat = {"pruner": row["pruner"], "visual_token_num": budget, "setting": options, "questions": questions}
    flat |= {"accuracy": found["value"] / 100, "ci95": [end / 100 for end in found["ci95"] or ()]}
    flat["visual_tokens"] = found["visual_tokens"]
    if found["paired"]:
        flat["right only without the pruner"] = found["paired"]["lost"]
        flat["right only with the pruner"] = found["paired"]["won"]
        flat["McNemar's p-value"] = found["paired"]["p_value"]
    return flat


def numbers(metric: str, value: Any, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of one entry: a number, a truth, or the accuracies of kinds of questions."""
    if metric == "accuracy":
        half = 1.96 * row.get("stderr", 0)
        ends = row.get("ci95") or ([value - half, value + half] if half else ["", ""])
        low, high = (end if end == "" else shown(100 * end) for end in ends)
        yield {"metric": metric, "value": shown(100 * value), "low": low, "high": high}
    elif metric == "by_type":
        for kind, share in value.items():
            yield {"metric": f"accuracy of {kind}", "value": shown(100 * share), "n": ""}
    elif metric == "above_random":
        half = 1.96 * row["above_random_stderr"]
        low, high = shown(100 * (value - half)), shown(100 * (value + half))
        yield {"metric": "accuracy above random", "value": shown(100 * value), "low": low, "high": high}
    elif metric == "outcome":
        yield {"metric": "passed", "value": int(value == "passed")}
    elif value is not None:
        yield {"metric": metric, "value": int(value) if isinstance(value, bool) else shown(value)}


def shown(value: Any) -> str:
    """A number in six digits; anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def flag(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "")


if __name__ == "__main__":
    run_program(build_parser(), write)
