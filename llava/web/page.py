"""The page: what a visitor sees, and what happens when they ask."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from llava.records import InputError
from llava.web.asked import NONE, Told
from llava.web.drawing import comparison, figure, message, name_of, reported, text_of
from llava.web.local import Local
from llava.web.remote import Remote
from llava.web.uploads import check_picture, read_picture
from llava.web.visits import Visits

logger = logging.getLogger(__name__)

LONGEST_QUESTION = 2000  # characters
FAILED = "Something failed here. The log of the program says what; the page goes on."
STYLE = Path(__file__).with_name("page.css")
BOXES = ("answer", "compared", "kept", "kept_other", "table")
KEPT = {"answer": "kept", "compared": "kept_other"}
"""Where the picture of an answer is drawn."""
Shown = tuple[str, ...]
"""What is in the boxes of answers: the status first, then one entry for each box."""


def path_of(uploaded: Any, visits: Visits) -> str | None:
    """Where an upload lies; None where there is none.

    Args:
        uploaded: what the browser says of it, which Gradio has not looked into: no file is opened for it before this.

    Raises:
        InputError: it names something else.
    """
    if uploaded is None:
        return None
    path = uploaded.get("path") if isinstance(uploaded, dict) else None
    if not (isinstance(path, str) and visits.holds(path)):
        raise InputError("Picture: is uploaded, never named.")
    return path


def checked_question(question: Any) -> str:
    """A question that asks something and is not too long.

    Raises:
        InputError: it is not.
    """
    question = question.strip() if isinstance(question, str) else ""
    if not question:
        raise InputError("Question: is empty; write what you want to know about the picture.")
    if len(question) > LONGEST_QUESTION:
        raise InputError(f"Question: has {len(question)} characters; at most {LONGEST_QUESTION} are read.")
    return question


def ask_local(engine: Local, path: str | None, question: str, pruner: str, budget: Any, other: str) -> Iterator[Shown]:
    """Ask with the pruner, with the other one, and without any, so that both have something to be held against.

    Yields:
        Status, answer, the other's answer, both pictures and the table.
    """
    question = checked_question(question)
    for each in (pruner, other):
        engine.check(each, budget)
    picture = read_picture(path)
    told: dict[str, Told] = {}
    shown, notes = dict.fromkeys(BOXES, ""), []
    for each in dict.fromkeys((pruner, other, NONE)):
        boxes = [box for box, name in (("answer", pruner), ("compared", other)) if name == each]
        status = message(f"Asking {name_of(each)} ...")
        yield (status, *shown.values())
        try:
            for text in growing_of(engine.ask(picture, question, each, budget), told, each):
                shown |= dict.fromkeys(boxes, text)
                yield (status, *shown.values())
        except InputError as error:
            if boxes:
                raise
            notes.append(f"Without a pruner it cannot be asked: {error}")  # which nobody chose to see
            continue
        shown |= dict.fromkeys(boxes, text_of(told[each]))
        shown |= {KEPT[box]: figure(each, told[each]) for box in boxes}
        shown["table"] = comparison(told)
    notes += [note for each in told.values() for note in each.notes]
    yield (message(" ".join(dict.fromkeys(notes))), *shown.values())


def growing_of(growing: Generator[str, None, Told], told: dict[str, Told], name: str) -> Iterator[str]:
    """Yield what ``growing`` yields, and note what it returns under ``name``."""
    told[name] = yield from growing


def ask_remote(engine: Remote, path: str | None, question: str) -> Iterator[Shown]:
    """Ask the server.

    Yields:
        Status, answer and the table of what the server reports.
    """
    question = checked_question(question)
    picture = read_picture(path)
    told: dict[str, Told] = {}
    status = message("Asking ...")
    yield (status, "", "")
    for text in growing_of(engine.ask(picture, question), told, ""):
        yield (status, text, "")
    yield (message(" ".join(told[""].notes)), text_of(told[""]), reported(told[""]))


def answering(
    ask: Callable[..., Iterator[Shown]], engine: Local | Remote, visits: Visits, boxes: int
) -> Callable[..., Iterator[Shown]]:
    """What the button does: ``ask``, whose errors become a message in the page, with the ``boxes`` empty."""

    def answer(uploaded: Any, *given: Any) -> Iterator[Shown]:
        try:
            yield from ask(engine, path_of(uploaded, visits), *given)
        except InputError as error:
            yield (message(str(error), wrong=True), *[""] * boxes)
        except Exception:
            logger.exception("a question of the page failed")
            yield (message(FAILED, wrong=True), *[""] * boxes)

    return answer


def build_page(engine: Local | Remote, visits: Visits, examples: Sequence[tuple[str, str]], at_once: int) -> gr.Blocks:
    """The page in front of a model in this process, or of a server."""
    local = isinstance(engine, Local)
    with gr.Blocks(title="llava", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(introduction(engine))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(
                    type="filepath",
                    label="Picture",
                    sources=["upload", "webcam"],
                    buttons=[],
                    height=280,
                    alt_text="The picture that is asked about",
                    elem_id="picture",
                )
                question = gr.Textbox(label="Question", max_length=LONGEST_QUESTION, lines=2, submit_btn=False)
                inputs = [picture, question, *(choices(engine) if local else ())]
                asking = gr.Button("Ask", variant="primary")
                status = gr.HTML(elem_id="status")
            with gr.Column(scale=3, min_width=300):
                outputs = [status, *(answers() if local else answer_of_server())]
        shown = [list(each) for each in examples]
        gr.Examples(shown, [picture, question], cache_examples=False, label="Examples", elem_id="examples")
        wrapped = answering(ask_local if local else ask_remote, engine, visits, len(outputs) - 1)
        gr.on(
            [asking.click, question.submit],
            wrapped,
            inputs,
            outputs,
            concurrency_limit=at_once,
            preprocess=False,
            show_progress_on=status,  # there it says how many are before the visitor
            api_visibility="private",
        )
        picture.change(noting(visits), picture, status, queue=False, preprocess=False, api_visibility="private")
        page.unload(leaving(visits))
    return page


def introduction(engine: Local | Remote) -> str:
    """What the page is, in a few sentences."""
    if isinstance(engine, Remote):
        how = "The server behind this page chooses the pruner; which tokens it dropped is not reported."
    else:
        most = "" if engine.tokens is None else f" Visual tokens says how many of {engine.tokens} in a tile are kept."
        knows = f"{engine.knows} " if engine.knows else ""
        how = f"{knows}A pruner drops visual tokens before the language model reads them.{most}"
    return f"<h1>Ask a picture</h1><p>Model: <b>{escape(engine.name)}</b>. {how}</p>"


def choices(engine: Local) -> Iterator[Any]:
    """The components that say how the question is asked."""
    names = [NONE, *engine.pruners]
    with gr.Row():
        yield gr.Dropdown(names, value=engine.pruner, label="Pruner", min_width=120)
        yield gr.Number(engine.budget, label="Visual tokens", precision=0, min_width=120)
        yield gr.Dropdown(names, value=NONE, label="Compare with", min_width=120)


def answers() -> list[Any]:
    """The components of two answers, side by side where there is room, and the table."""
    with gr.Row():
        with gr.Column(min_width=280):
            answer = gr.Textbox(label="Answer", interactive=False, lines=2)
            kept = gr.HTML(elem_classes="kept")
        with gr.Column(min_width=280):
            compared = gr.Textbox(label="Compared", interactive=False, lines=2)
            kept_other = gr.HTML(elem_classes="kept")
    return [answer, compared, kept, kept_other, gr.HTML()]


def answer_of_server() -> list[Any]:
    """The components of a server's answer."""
    return [gr.Textbox(label="Answer", interactive=False, lines=4), gr.HTML()]


def noting(visits: Visits) -> Callable[..., str]:
    """What happens when a picture is chosen: it is noted, and refused at once if its header says so."""

    def chosen(uploaded: Any, request: gr.Request) -> str:
        try:
            if (path := path_of(uploaded, visits)) is not None:
                visits.note(request.session_hash, path)
                check_picture(path)
        except InputError as error:
            return message(str(error), wrong=True)
        return ""

    return chosen


def leaving(visits: Visits) -> Callable[..., None]:
    """What happens when a visitor closes the page."""

    def left(request: gr.Request) -> None:
        visits.end(request.session_hash)

    return left
