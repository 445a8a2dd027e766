"""A report as one page, in one file that needs no other."""

import re
from collections.abc import Callable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from llava.eval.pictures.contents import TITLE, Part, Report
from llava.eval.pictures.gallery import data_uri
from llava.eval.pictures.shown import Said, Section, Shown, View
from llava.eval.results.grids import Grid

STYLE = Path(__file__).with_name("page.css")
MARKS = {"right": "\u2713 ", "wrong": "\u2717 "}
KEY = "\u2713 right, \u2717 wrong; changed: another answer than the one without a pruner, be it better or worse."

Tell = Callable[[str], str]
"""Makes a text fit for the page."""


def to_html(report: Report) -> str:
    """The page."""

    def tell(text: str) -> str:
        return escape(report.public(text))

    links = [f'<a href="#{_anchor(tell(part.title))}">{tell(part.title)}</a>' for part in report.parts]
    body = [f"<h1>{TITLE}</h1>", f'<p class="note">{tell(report.written)}</p>', "<nav>", *links, "</nav>"]
    for part in report.parts:
        body += _part(part, tell)
    uris = {name: data_uri(content, "jpeg") for name, content in report.pictures.items()}
    styles = [f".{name} {{ background-image: url({uri}) }}" for name, uri in uris.items()]
    style = "\n".join([STYLE.read_text(encoding="utf-8"), *styles])
    head = ['<meta charset="utf-8">', '<meta name="viewport" content="width=device-width, initial-scale=1">']
    head += [f"<title>{TITLE}</title>", f"<style>\n{style}\n</style>"]
    page = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join([*page, ""])


def _part(part: Part, tell: Tell) -> Iterator[str]:
    plot = data_uri(part.plot.encode(), "svg+xml")
    yield f'<h2 id="{_anchor(tell(part.title))}">{tell(part.title)}</h2>'
    yield from (_note(tell(note)) for note in part.notes)
    for number, grid in enumerate(part.grids):
        if number == 1:
            yield f'<p><img class="plot" alt="score against visual tokens, by benchmark" src="{plot}"></p>'
        yield from _grid(grid, tell)
    for section in part.sections:
        yield from _section(section, tell)


def _grid(grid: Grid, tell: Tell) -> Iterator[str]:
    kinds = ["word" if number < grid.words else "number" for number in range(len(grid.heading))]
    heads = [f'<th class="{kind}">{tell(name)}</th>' for kind, name in zip(kinds, grid.heading, strict=True)]
    kind = ' class="words"' if grid.words == len(grid.heading) else ""
    yield f'<h3>{tell(grid.title)}</h3><div class="wide"><table{kind}>'
    yield f"<thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for number, row in enumerate(grid.rows):
        # The name of its column stands in every cell, for a narrow window, where a row is a block of lines.
        cells = [
            f'<td class="{kind}" data-name="{tell(name)}">{tell(text)}</td>'
            for kind, name, text in zip(kinds, grid.heading, row, strict=True)
        ]
        kind = ' class="floor"' if number in grid.floors else ""
        yield f"<tr{kind}>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    yield from (_note(tell(note)) for note in grid.notes)


def _section(section: Section, tell: Tell) -> Iterator[str]:
    yield f"<h3>{tell(section.title)}</h3>"
    yield from (_note(tell(note)) for note in [*section.notes, *([KEY] if section.questions else [])])
    for question in section.questions:
        yield from _question(question, tell)


def _question(question: Shown, tell: Tell) -> Iterator[str]:
    yield f'<details open><summary><span class="question">{tell(question.prompt)}</span></summary>'
    if question.truth:
        yield f'<p class="truth">Right answer: <b>{tell(question.truth)}</b></p>'
    if question.picture:
        yield f'<div class="picture">{_view(question.picture)}</div>'
    if question.note:
        yield _note(tell(question.note))
    yield '<div class="answers">'
    for pruner, said in groupby(question.answers, key=lambda answer: answer.pruner):
        yield f'<div class="pruner"><h4>{tell(pruner)}</h4>{"".join(_answer(each, tell) for each in said)}</div>'
    yield "</div></details>"


def _answer(said: Said, tell: Tell) -> str:
    place = tell(", ".join(filter(None, [said.setting, said.seen_tokens])))
    kind = said.verdict if said.verdict in MARKS else "partly" if said.verdict else "unknown"
    text = f'{MARKS.get(kind, "")}<span class="answer">{tell(said.text)}</span>'
    more = [f'<span class="tag">{tell(said.verdict)}</span>'] * (kind == "partly")
    more += ['<span class="tag">changed</span>'] * said.changed
    caption = f"{place}<br>{' '.join([text, *more])}"
    note = _note(tell(said.note)) if said.note else ""
    changed = " changed" * said.changed
    views = "".join(map(_view, said.views))
    return f'<figure class="{kind}{changed}">{views}{note}<figcaption>{caption}</figcaption></figure>'


def _view(view: View) -> str:
    box = f'viewBox="0 0 {view.width} {view.height}"'
    return f'<svg class="view {view.name}" {box}><path d="{view.covered}"/></svg>'


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _anchor(title: str) -> str:
    return re.sub(r"[^\w.-]+", "-", title)
