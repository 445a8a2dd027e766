"""The documents, and what stands in them."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code in a document, and what the document says that it prints."""

    code: str
    prints: str | None


def blocks(document: Path, language: str) -> list[Block]:
    """The blocks of one language; what a block prints is the block of text right behind it."""
    text = document.read_text(encoding="utf-8")
    found = list(FENCED.finditer(text))
    return [
        Block(match[2], _printed(match, after, text))
        for match, after in zip(found, [*found[1:], None], strict=False)
        if match[1] == language
    ]


def _printed(match: re.Match, after: re.Match | None, text: str) -> str | None:
    behind = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
    return after[2] if behind else None


@pytest.fixture(scope="session")
def pages() -> ModuleType:
    """What makes pages of the documents."""
    spec = importlib.util.spec_from_file_location("site_pages", REPOSITORY / "docs" / "_site" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
