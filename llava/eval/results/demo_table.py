"""What the demo measured as text: accuracies, and how each pruner does beside no pruner."""

from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.results.paired import Paired


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy in percent with its standard error: pruners down, budgets across."""
    head = "accuracy in %, +- one standard error"
    return _lines(head, rows, _accuracy)


def row_line(row: Mapping[str, Any]) -> str:
    """One row alone: pruner, tokens kept and accuracy."""
    return f"{row_name(row)}, {row['visual_token_num']} tokens: {_accuracy(row)} %"


def _accuracy(row: Mapping[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f} +- {100 * row['stderr']:.1f}"


def paired_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Questions that tell a pruner from none, with McNemar's exact p-value: pruners down, budgets across."""
    head = "questions that only the model without a pruner (-) or with it (+) answers rightly, McNemar's exact p"
    compared = [row for row in rows if "only_unpruned" in row]
    return _lines(head, compared, lambda row: str(Paired(row["only_unpruned"], row["only_pruned"])).strip("[]"))


def _lines(head: str, rows: Sequence[Mapping[str, Any]], cell: Any) -> str:
    budgets = sorted({row["visual_token_num"] for row in rows}, reverse=True)
    cells = {(row_name(row), row["visual_token_num"]): cell(row) for row in rows}
    names = list(dict.fromkeys(map(row_name, rows)))
    first = max(20, *(len(name) + 2 for name in names)) if names else 20
    width = max(14, *(len(text) + 3 for text in cells.values())) if cells else 14
    lines = [head, f"{'tokens kept':<{first}}" + "".join(f"{budget:>{width}}" for budget in budgets)]
    for name in names:
        shown = [cells.get((name, budget), "") for budget in budgets]
        lines.append(f"{name:<{first}}" + "".join(f"{text:>{width}}" for text in shown))
    return "\n".join(lines)


def row_name(row: Mapping[str, Any]) -> str:
    """The pruner, and the positions of the tokens it kept where they are not the usual ones."""
    return f"{row['pruner']}, original" if row["positions"] == "original" else row["pruner"]
