"""The page in a real browser. The answers that it shows are held against those that the model gives here."""

from pathlib import Path

import pytest

from .conftest import running
from .test_uploads import bomb
from .visitor import QUESTION, ask, choose, expected, finished, press, refused, upload

pytestmark = pytest.mark.browser


def test_a_question_is_answered_before_and_after_pruning(site, open_page, engine, drawn, trap):
    page, path = open_page(site.address), drawn[1][0]
    for label in ("Question", "Pruner", "Visual tokens", "Compare with", "Answer"):
        assert page.get_by_label(label, exact=True).count() == 1
    assert page.locator("#picture label").inner_text().strip() == "Picture"
    assert page.get_by_label("Visual tokens").input_value() == "18"
    ask(page, path)
    before, after = finished(page, 2)
    plain, pruned = expected(engine, path, "none", 18), expected(engine, path, "cdpruner", 18)
    assert page.get_by_label("Answer").input_value() == pruned.text
    assert page.get_by_label("Compared").input_value() == plain.text
    assert before[:2] == ["without a pruner", "144"] and before[4] == plain.text
    assert after[:2] == ["cdpruner", "18"] and after[4].startswith(pruned.text)
    assert all(int(row[2]) >= int(row[3]) > 0 for row in (before, after))
    alt = [image.get_attribute("alt") for image in page.locator(".kept img").all()]
    assert [said.split(", ")[1].split(" visual")[0] for said in alt] == [
        "cdpruner: 18 of 144",
        "without a pruner: all 144",
    ]
    assert page.errors == []
    own = (site.address, "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(own)] == [] and len(page.requests) > 10
    assert trap.came == []  # nor does the server ask anybody


def test_two_visitors_with_two_pruners_get_their_own_answers(site, open_page, engine, drawn):
    paths = [path for path, _ in drawn]
    one, two = open_page(site.address), open_page(site.address)
    ask(one, paths[3], pruner="divprune", budget=9, other="uniform")
    ask(two, paths[4], pruner="vispruner", budget=27, other="random")
    for page, path, names, budget in (
        (one, paths[3], ("divprune", "uniform"), 9),
        (two, paths[4], ("vispruner", "random"), 27),
    ):
        told = [expected(engine, path, name, budget) for name in names]
        rows = finished(page, 3)
        assert [row[:2] for row in rows] == [["without a pruner", "144"], *([name, str(budget)] for name in names)]
        assert page.get_by_label("Answer").input_value() == told[0].text
        assert page.get_by_label("Compared").input_value() == told[1].text


def test_examples_are_asked_with_a_click(site, open_page, engine, drawn):
    page, (path, question) = open_page(site.address), drawn[2]
    page.get_by_role("row", name=question).click()
    page.locator("#picture img").wait_for()
    assert page.get_by_label("Question").input_value() == question
    choose(page, "Pruner", "none")
    press(page)
    finished(page, 1)
    assert page.get_by_label("Answer").input_value() == expected(engine, path, "none", 1, question).text


def test_the_webcam(site, open_page):
    page = open_page(site.address)
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("(document.querySelector('#picture video')?.videoWidth ?? 0) > 0")
    page.get_by_label("capture photo").click()
    page.get_by_alt_text("The picture that is asked about").wait_for()
    page.get_by_label("Question").fill(QUESTION)
    press(page)
    assert finished(page, 2)[1][:2] == ["cdpruner", "18"]


def test_what_cannot_be_answered_is_told_and_the_page_goes_on(site, open_page, drawn, tmp_path):
    page = open_page(site.address)
    page.get_by_label("Question").fill(QUESTION)
    press(page)
    assert refused(page) == "No picture: upload one, take one with the webcam, or choose an example."
    for content, said in (
        (bomb(tmp_path / "bomb.png", 60_000, 60_000).read_bytes(), "50 megapixels"),
        (Path(drawn[0][0]).read_bytes()[:3000], "broken"),
        (b"\x89PNG no picture", "no picture that can be read"),
    ):
        (tmp_path / "a.png").write_bytes(content)
        upload(page, tmp_path / "a.png")
        press(page)
        page.get_by_role("alert").get_by_text(said).wait_for()
        page.get_by_label("Remove Image").click()
    ask(page, drawn[0][0], question="  ")
    page.get_by_role("alert").get_by_text("Question: is empty").wait_for()
    page.get_by_label("Question").fill(QUESTION)
    for budget, said in (("500", "choose 1 to 144"), ("0", "whole number from 1 up"), ("", "whole number from 1 up")):
        page.get_by_label("Visual tokens").fill(budget)
        press(page)
        page.get_by_role("alert").get_by_text(said).wait_for()
        assert page.get_by_label("Answer").input_value() == ""
    page.get_by_label("Visual tokens").fill("18")
    press(page)
    finished(page, 2)
    assert page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("width", [1400, 420])
def test_nothing_is_cut_off(site, open_page, drawn, width):
    page = open_page(site.address, width)
    ask(page, drawn[1][0], other="prumerge")
    finished(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in (page.get_by_label("Answer"), page.get_by_label("Compared"), *page.locator(".kept img").all()):
        box = place.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > 200
    one, two = (image.bounding_box() for image in page.locator(".kept img").all())
    assert (one["y"] == pytest.approx(two["y"], abs=60)) == (width == 1400)  # side by side where there is room


def test_answers_come_word_by_word_and_others_wait_their_turn(open_page, drawn, tmp_path, openai_server):
    openai_server.gate.clear()
    with running("--server", openai_server.url, "--at-once", "1", "--queue", "1", places=tmp_path) as page:
        one, two, three = (open_page(page.address) for _ in range(3))
        ask(one, drawn[0][0])
        one.wait_for_function("document.querySelectorAll('textarea')[1].value.trim() === 'Six'")
        ask(two, drawn[1][0])
        two.get_by_text("queue: 1/1").wait_for()
        ask(three, drawn[2][0])
        three.get_by_text("This application is currently busy").wait_for()
        assert one.get_by_label("Answer").input_value().strip() == "Six" and len(openai_server.asked) == 1
        openai_server.gate.set()
        for visitor in (one, two):
            finished(visitor, 1)
            assert visitor.get_by_label("Answer").input_value() == "Six <b>shapes</b>"


def test_in_front_of_a_server(open_page, drawn, tmp_path, openai_server):
    with running("--server", openai_server.url, "--max-new-tokens", "5", places=tmp_path) as page:
        seen = open_page(page.address)
        assert [seen.get_by_label(label).count() for label in ("Pruner", "Visual tokens", "Compare with")] == [0, 0, 0]
        assert seen.get_by_text("chooses the pruner").count() == 1
        ask(seen, drawn[0][0])
        assert finished(seen, 1)[0][0] == "71"
        assert seen.get_by_label("Answer").input_value() == "Six <b>shapes</b>"
        assert "ends after 5 tokens" in seen.locator("#status").inner_text()
        assert openai_server.asked[0]["max_tokens"] == 5
        openai_server.pieces = []
        press(seen)
        seen.wait_for_function("document.querySelectorAll('textarea')[1].value === '(no answer)'")
        openai_server.status = 500
        press(seen)
        seen.get_by_role("alert").get_by_text("500, too long by far").wait_for()
        assert page.stop() == 0
        assert [*tmp_path.iterdir()] == []  # nothing is left of the visit
        assert "Traceback" not in "\n".join(page.said)
        assert [line for line in page.said if "http" in line] == [page.address]
