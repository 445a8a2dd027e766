"""Every block of Python in the documents is run; of what needs more than a clone, names and keywords are looked up."""

import ast
import builtins
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from llava.model.loading import LOADING_OPTIONS
from llava.pruners import option_names
from llava.pruners.base import BUDGETS
from llava.selecting.options import PruningOptions

from .conftest import DOCUMENTS, REPOSITORY, Block, blocks

READ = {
    "needs a checkpoint of the hub": r"liuhaotian/|llava-hf/|OpenGVLab/|Qwen/|\"checkpoints/",
    "needs a server": r"OpenAI\(",
    "is a method without its class": r"\A    def merge",
}
"""Why a block is not run, and how such a block is known."""
ELSEWHERE = {"openai", "vllm", "av", "torchvision"}
"""Packages that may be missing here."""
OPTIONS = {"pruner", *BUDGETS, *option_names(), *LOADING_OPTIONS, *(each.name for each in fields(PruningOptions))}
"""Keywords that functions of this package take beside those in their signatures."""
WITH_PYTHON = [document for document in DOCUMENTS if blocks(document, "python")]


def why_read(code: str) -> str | None:
    """Why a block is read and not run; None for one that is run."""
    return next((reason for reason, pattern in READ.items() if re.search(pattern, code)), None)


def imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Any]]:
    """The names that an import makes, and what they are: None of a package that is missing here."""
    for alias in statement.names:
        module = statement.module if isinstance(statement, ast.ImportFrom) else alias.name
        name = alias.asname or alias.name.split(".")[0]
        try:
            found = importlib.import_module(module)
        except ImportError:
            assert module.split(".")[0] in ELSEWHERE, f"no module {module}"
            yield name, None
            continue
        yield name, getattr(found, alias.name) if isinstance(statement, ast.ImportFrom) else found


def called(node: ast.expr, known: dict[str, Any]) -> Any:
    """What an expression such as ``llava.load`` names, None where only running it would tell."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = called(node.value, known)
        return None if owner is None else getattr(owner, node.attr)
    return None


def check_call(function: Callable[..., Any], call: ast.Call) -> None:
    """Hold the keywords of a call to those that a function of this package takes."""
    parameters = inspect.signature(function).parameters
    takes_more = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    valid = {*parameters, *(OPTIONS if takes_more else ())}
    wrong = {keyword.arg for keyword in call.keywords if keyword.arg} - valid
    assert not wrong, f"{function.__qualname__} takes no {', '.join(sorted(wrong))}"


def read(code: str, known: dict[str, Any]) -> None:
    """Look up every name and every keyword of a block; ``known`` gets the names that it makes."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= imported(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.setdefault(node.id, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id in known or hasattr(builtins, node.id), f"line {node.lineno}: no {node.id}"
        if isinstance(node, ast.Call):
            function = called(node.func, known)
            if callable(function) and getattr(function, "__module__", "").startswith("llava"):
                check_call(function, node)


def run(block: Block, known: dict[str, Any], capsys: Any) -> None:
    """Run a block as the next of its document, and hold what it prints to what stands behind it."""
    exec(compile(block.code, "a block", "exec"), known)
    printed = capsys.readouterr().out
    assert block.prints in (None, printed)


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_every_block_is_run_or_read(document: Path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    known: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(document, "python"):
        reason = why_read(block.code)
        if reason is None:
            run(block, known, capsys)
        elif reason == "is a method without its class":
            ast.parse(textwrap.dedent(block.code))
        else:
            read(block.code, known)


def test_blocks_that_are_read_are_told_from_those_that_are_run():
    reasons = [why_read(block.code) for document in WITH_PYTHON for block in blocks(document, "python")]
    assert reasons.count(None) >= 7
    assert set(reasons) == {None, *READ}


def test_the_embedded_model_is_asked_what_it_can_answer():
    code = [block.code for document in DOCUMENTS for block in blocks(document, "bash")]
    code += [block.code for document in WITH_PYTHON for block in blocks(document, "python") if not why_read(block.code)]
    assert not [each for each in code if "What is this" in each]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("from llava.pruning import prune\nprune(model)", "no model"),
        ("from llava.pruning import prune\nmodel = 1\nprune(model, 'x', tokens=64)", "takes no tokens"),
        ("from llava.pruning import shorten_all", "shorten_all"),
        ("import llava\nllava.pruners.nothing()", "nothing"),
        ("import llavas", "no module llavas"),
    ],
)
def test_a_block_that_went_stale_is_found(code, error):
    with pytest.raises((AssertionError, AttributeError), match=error):
        read(code, {})
    read("from llava.pruning import prune\nmodel = 1\nprune(model, 'cdpruner', visual_token_num=64, theta=1)", {})
