import base64
import io

import numpy as np
from PIL import Image

from llava.web.asked import Told
from llava.web.drawing import NO_ANSWER, comparison, data_url, figure, message, reported, text_of

FADED = np.full((8, 8, 3), 90, dtype=np.uint8)


def test_an_empty_answer_is_drawn():
    assert text_of(Told("", 1.0)) == NO_ANSWER == "(no answer)"
    assert text_of(Told("six", 1.0)) == "six"


def test_a_picture_is_within_the_page():
    head, data = data_url(FADED).split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 8)


def test_a_figure_says_how_much_was_read_to_those_who_do_not_see_it():
    drawn = figure("divprune", Told("six", 1.0, visual_tokens=18, tokens_before=144, pictures=[FADED, FADED]))
    assert drawn.count("<img ") == drawn.count('alt="The picture as the model sees it, divprune: 18 of 144') == 2
    assert "<figcaption>divprune: 18 of 144 visual tokens read; what was dropped is faded</figcaption>" in drawn
    assert "all 144 visual tokens read" in figure(
        "none", Told("", 1.0, visual_tokens=144, tokens_before=144, pictures=[FADED])
    )


def test_where_tokens_lie_may_not_be_known():
    drawn = figure("divprune", Told("six", 1.0, visual_tokens=18, tokens_before=144))
    assert "<img" not in drawn and "18 of 144" in drawn and "not known" in drawn


def cells(table: str) -> list[list[str]]:
    return [row.replace("</tr>", "").replace("</td>", "").split("<td>")[1:] for row in table.split("<tr>")[2:]]


def test_the_table_begins_without_a_pruner():
    told = {
        "divprune": Told("five", 0.0204, 0.01, 18, 144),
        "cdpruner": Told("six", 0.03, None, 18, 144),
        "none": Told("six", 0.5, 0.25, 144, 144),
    }
    rows = cells(comparison(told))
    assert rows[0] == ["without a pruner", "144", "500", "250", "six"]
    assert rows[1] == ["divprune", "18", "20", "10", "five (another)"]
    assert rows[2][:4] == ["cdpruner", "18", "30", ""] and rows[2][4].startswith("six (the same)")
    assert len(cells(comparison({"divprune": told["divprune"]}))) == 1


def test_text_from_elsewhere_is_no_markup():
    evil = "<img src=x onerror=alert(1)>"
    told = Told(evil, 1.0, visual_tokens=1, tokens_before=2, pictures=[FADED])
    for drawn in (comparison({evil: told}), figure(evil, told), message(evil), message(evil, wrong=True)):
        assert "onerror" in drawn and "<img src=x" not in drawn


def test_a_server_s_numbers():
    assert "<td>71</td><td>1500</td><td>200</td>" in reported(Told("six", 1.5, 0.2, prompt_tokens=71))
    assert "not reported" in reported(Told("six", 1.5))


def test_messages():
    assert message("") == ""
    assert 'role="alert"' in message("no", wrong=True) and 'role="status"' in message("soon")
