"""What happens when a visitor asks, without a browser."""

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs Gradio, extra web")

from llava.records import InputError
from llava.web import page as web_page
from llava.web.asked import Told
from llava.web.local import Local
from llava.web.page import (
    FAILED,
    LONGEST_QUESTION,
    answering,
    ask_local,
    ask_remote,
    checked_question,
    introduction,
    path_of,
)
from llava.web.program import build_parser
from llava.web.remote import Remote
from llava.web.serving import EMBEDDED, engine_of
from llava.web.visits import Visits

QUESTION = "How many shapes are there?"


@pytest.fixture
def uploaded(tmp_path, picture):
    """What a browser says of an upload, and the visits whose folder it lies in."""
    picture.save(tmp_path / "a.png")
    return {"path": str(tmp_path / "a.png"), "meta": {"_type": "gradio.FileData"}}, Visits(tmp_path)


@pytest.mark.parametrize("named", ["/etc/passwd", "a.png", 7, None])
def test_what_is_named_is_no_upload(uploaded, named):
    file, visits = uploaded
    assert path_of(file, visits) == file["path"] and path_of(None, visits) is None
    for given in ({"path": named}, named if named is not None else {}, {"url": "data:image/png;base64,AAAA"}):
        with pytest.raises(InputError, match="is uploaded, never named"):
            path_of(given, visits)


@pytest.mark.parametrize("question", ["", "  \n", None, 7, {"path": "/etc/passwd"}, "x" * (LONGEST_QUESTION + 1)])
def test_questions_that_are_none(question):
    with pytest.raises(InputError, match="^Question: "):
        checked_question(question)


def test_questions():
    assert checked_question(" x\n") == "x" and len(checked_question("x" * LONGEST_QUESTION)) == LONGEST_QUESTION


def test_the_pruner_comes_first_and_all_three_are_in_the_table(engine, uploaded):
    steps = [*ask_local(engine, uploaded[0]["path"], QUESTION, "divprune", 18, "uniform")]
    assert "Asking divprune" in steps[0][0] and steps[0][1:] == ("",) * 5
    assert len({len(step) for step in steps}) == 1
    status, answer, compared, kept, kept_other, table = steps[-1]
    assert status == "" and answer and compared and "divprune" in kept and "uniform" in kept_other
    assert [table.index(name) for name in ("without a pruner", "divprune", "uniform")] == sorted(
        table.index(name) for name in ("without a pruner", "divprune", "uniform")
    )


def test_one_choice_is_asked_once(engine, uploaded):
    steps = [*ask_local(engine, uploaded[0]["path"], QUESTION, "none", None, "none")]
    assert steps[-1][1] == steps[-1][2] != "" and steps[-1][5].count("<tr>") == 2


class Limited:
    """An engine that cannot be asked without a pruner, and grows its answers piece by piece."""

    def check(self, pruner, budget):
        pass

    def ask(self, picture, question, pruner, budget):
        if pruner == "none":
            raise InputError("it would lose its end")
        yield "s"
        yield "six"
        return Told("six", 1.0, 0.5, 18, 144, notes=["A note."])


def test_answers_grow(uploaded):
    steps = [*ask_local(Limited(), uploaded[0]["path"], QUESTION, "divprune", 18, "divprune")]
    assert [step[1] for step in steps] == ["", "s", "six", "six", "six"]


def test_what_nobody_chose_may_fail(uploaded):
    *_, last = ask_local(Limited(), uploaded[0]["path"], QUESTION, "divprune", 18, "uniform")
    assert "Without a pruner it cannot be asked: it would lose its end A note." in last[0] and last[1] == "six"
    with pytest.raises(InputError, match="lose its end"):
        [*ask_local(Limited(), uploaded[0]["path"], QUESTION, "divprune", 18, "none")]


def test_errors_are_shown_and_boxes_emptied(uploaded, caplog):
    file, visits = uploaded

    def ask(engine, path, question):
        yield ("Asking", "half an ans")
        raise InputError("<no>") if question == "told" else RuntimeError("secret")

    *_, told = answering(ask, None, visits, 1)(file, "told")
    assert 'role="alert"' in told[0] and "&lt;no&gt;" in told[0] and told[1] == ""
    *_, failed = answering(ask, None, visits, 1)(file, "else")
    assert FAILED in failed[0] and "secret" not in failed[0] and "secret" in caplog.text and failed[1] == ""


def test_a_server_is_asked(uploaded, openai_server):
    steps = [*ask_remote(Remote(openai_server.url, None, 5, 1), uploaded[0]["path"], QUESTION)]
    assert [step[1] for step in steps] == ["", "Six ", "Six <b>shapes</b>", "Six <b>shapes</b>"]
    assert "ends after 5 tokens" in steps[-1][0] and "<td>71</td>" in steps[-1][2]


def test_a_choice_of_picture_is_noted_and_checked(uploaded, tmp_path):
    file, visits = uploaded
    request = type("Request", (), {"session_hash": "ada"})
    chosen, left = web_page.noting(visits), web_page.leaving(visits)
    assert chosen(file, request) == "" and chosen(None, request) == ""
    assert "never named" in chosen({"path": "/etc/passwd"}, request)
    Image.new("RGB", (8000, 7000)).save(tmp_path / "large.png")
    assert "at most 50 megapixels" in chosen({"path": str(tmp_path / "large.png")}, request)
    left(request)
    assert not (tmp_path / "a.png").exists() and not (tmp_path / "large.png").exists()


def test_of_the_embedded_model_a_visitor_is_told_what_it_knows(engine):
    assert EMBEDDED not in introduction(engine)
    told = Local(engine.model, max_new_tokens=2, at_once=1, knows=EMBEDDED)
    assert EMBEDDED in introduction(told) and engine_of(build_parser().parse_args([]), None).knows == EMBEDDED
