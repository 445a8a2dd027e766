"""A report as Markdown: its tables, and the questions in words; pictures are on the page."""

from collections.abc import Callable, Iterator

from llava.eval.pictures.contents import TITLE, Report
from llava.eval.pictures.shown import Said, Section, Shown
from llava.eval.results.formats import literal, markdown_grid
from llava.eval.results.grids import Grid


def to_text(report: Report) -> str:
    """The report."""

    def tell(text: str) -> str:
        return literal(report.public(text))

    blocks = [f"# {TITLE}", tell(report.written)]
    for part in report.parts:
        blocks += [f"## {tell(part.title)}", *map(tell, part.notes)]
        for grid in part.grids:
            blocks += [f"### {tell(grid.title)}", markdown_grid(grid.each(report.public)), *map(tell, grid.notes)]
        for section in part.sections:
            blocks += _section(section, tell)
    return "\n\n".join(blocks) + "\n"


def _section(section: Section, tell: Callable[[str], str]) -> Iterator[str]:
    yield f"### {tell(section.title)}"
    yield from map(tell, section.notes)
    for question in section.questions:
        right = f" Right answer: {tell(question.truth)}." if question.truth else ""
        yield f"**{tell(question.prompt)}**{right}"
        yield markdown_grid(_answers(question))


def _answers(question: Shown) -> Grid:
    rows = [[said.pruner, said.setting, said.text, _judged(said), said.seen_tokens] for said in question.answers]
    return Grid("", ["pruner", "setting", "answer", "it is", "visual tokens"], rows, 4)


def _judged(said: Said) -> str:
    return ", ".join(filter(None, [said.verdict, "changed" if said.changed else ""]))
