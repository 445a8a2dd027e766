"""What makes the documents of the repository pages of the site; needs nothing but Python."""

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"

SHOWN = {
    "evaluation": "EVAL.md",
    "changelog": "CHANGELOG.md",
    "embedded_model": "llava/shapes/checkpoints/README.md",
}
"""Pages of the site whose text lies elsewhere in the repository, where other documents link to it."""

FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`* *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<label>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src", "object": "data"}
"""Tags that make a browser load something, and the attribute that says what."""
NOT_LOADED = {"canonical", "next", "prev", "author", "license", "index", "search"}
"""What a ``link`` may be without anything being loaded."""


def page_of(path: Path) -> str | None:
    """The page that shows a file of the repository, by its name within the site; None for a file that is no page."""
    for page, shown in SHOWN.items():
        if path == REPOSITORY / shown:
            return page
    if path == REPOSITORY / "README.md":
        return "index"
    if path.suffix == ".md" and path.is_relative_to(DOCS) and path.is_file():
        return path.relative_to(DOCS).with_suffix("").as_posix()
    return None


def text_of(page: str, written: str, address: str | None) -> str:
    """The Markdown of a page, each link in it leading to where its target is on the site.

    A link to a page leads to that page. Other files of the repository are shown at its address, if it has one; without
    one a link to a file leads to a copy of it, and of a link to a folder the words are left.

    Args:
        page: its name within the site.
        written: what its own file holds, which counts unless ``SHOWN`` names another.
        address: the repository's, such as ``https://host/owner/name``.
    """
    source = REPOSITORY / SHOWN[page] if page in SHOWN else DOCS / f"{page}.md"
    text = source.read_text(encoding="utf-8") if page in SHOWN else written
    here = (DOCS / page).parent

    def moved(match: re.Match) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if not target or urlsplit(target).scheme:
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        if not path.exists():
            raise ValueError(f"{source.relative_to(REPOSITORY)}: {target} leads nowhere")
        other = page_of(path)
        if other is not None:
            anchor = "" if other == "index" else f"{hash_}{anchor}"
            return f"[{match['label']}]({os.path.relpath(DOCS / other, here)}.md{anchor})"
        if match["image"]:
            return f"![{match['label']}]({os.path.relpath(path, here)})"
        if address:
            return f"[{match['label']}]({address}/blob/HEAD/{path.relative_to(REPOSITORY).as_posix()}{hash_}{anchor})"
        return f"[{match['label']}](path:{os.path.relpath(path, here)})" if path.is_file() else match["label"]

    return "".join(part if fenced else LINK.sub(moved, part) for fenced, part in _parts(text))


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """The text piece by piece, each with whether it is a block of code."""
    end = 0
    for match in FENCE.finditer(text):
        yield False, text[end : match.start()]
        yield True, match[0]
        end = match.end()
    yield False, text[end:]


class _Loads(HTMLParser):
    """Collects what a browser loads for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.in_style = tag == "style"
        if not (tag == "link" and set(values.get("rel", "").split()) & NOT_LOADED):
            self.found.append(values.get(LOADED.get(tag, ""), ""))
        self.found += addresses_in(values.get("style", ""))
        self.found += [piece.split()[0] for piece in values.get("srcset", "").split(",") if piece.strip()]

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.found += addresses_in(data)


def addresses_in(style: str) -> list[str]:
    """What a style sheet loads."""
    return re.findall(r"""(?:url\(|@import\s)\s*["']?([^"')\s;]+)""", style)


def loads_from_elsewhere(file: Path) -> list[str]:
    """The addresses on other hosts that a browser loads something from for a page or a style sheet of the site."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".css":
        found = addresses_in(text)
    else:
        parser = _Loads()
        parser.feed(text)
        found = parser.found
    return [address for address in found if urlsplit(address).netloc]
