"""What the page shows of answers besides their text, as HTML; all text from elsewhere is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from llava.web.asked import NONE, Told

NO_ANSWER = "(no answer)"
QUALITY = 90  # of a JPEG


def name_of(pruner: str) -> str:
    """What the page calls a choice."""
    return "without a pruner" if pruner == NONE else pruner


def text_of(told: Told) -> str:
    """An answer as it is shown."""
    return told.text or NO_ANSWER


def data_url(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 within the page: no file of it is left anywhere."""
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def figure(pruner: str, told: Told) -> str:
    """What the encoder saw of the picture, with a caption that says how much of it the language model read."""
    name, whole = name_of(pruner), told.visual_tokens == told.tokens_before
    counts = f"all {told.tokens_before}" if whole else f"{told.visual_tokens} of {told.tokens_before}"
    counts += " visual tokens"
    if not told.pictures:
        return f"<p>{escape(name)}: {counts} read. Where they lie in the picture is not known for this model.</p>"
    caption = f"{name}: {counts} read" + ("" if whole else "; what was dropped is faded")
    alt = f"The picture as the model sees it, {caption}"
    images = "".join(f'<img src="{data_url(each)}" alt="{escape(alt)}">' for each in told.pictures)
    return f"<figure>{images}<figcaption>{escape(caption)}</figcaption></figure>"


def comparison(rows: Mapping[str, Told]) -> str:
    """The table of tokens and times, before pruning and after it.

    Args:
        rows: by pruner, in the order in which they were asked; the row without a pruner comes first in the table.
    """
    order = sorted(rows, key=lambda name: name != NONE)
    before = rows.get(NONE)
    cells = []
    for name in order:
        told = rows[name]
        text = text_of(told)
        same = "" if before is None or name == NONE else " (the same)" if told.text == before.text else " (another)"
        tokens = "" if told.visual_tokens is None else str(told.visual_tokens)
        cells.append([name_of(name), tokens, f"{1000 * told.seconds:.0f}", _milliseconds(told.first), text + same])
    head = ["", "Tokens read of the picture", "ms in all", "ms to the first word", "Said"]
    note = "One run each, beside whatever else runs here: no benchmark."
    return _table("Before pruning and after it", head, cells, note)


def reported(told: Told) -> str:
    """The table of what a server reports."""
    tokens = "not reported" if told.prompt_tokens is None else str(told.prompt_tokens)
    cells = [[tokens, f"{1000 * told.seconds:.0f}", _milliseconds(told.first)]]
    head = ["Tokens of text and picture", "ms in all", "ms to the first word"]
    return _table("What the server reports, and its times as seen from here", head, cells, "One run: no benchmark.")


def message(text: str, wrong: bool = False) -> str:
    """A line for the visitor; an error is announced at once by what reads pages aloud."""
    if not text:
        return ""
    role, kind = ("alert", "wrong") if wrong else ("status", "told")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f}"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    top = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="numbers"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><p class='note'>{escape(note)}</p>"
    )
