"""The page in a real browser. The answers that it shows are held against those that the model gives here."""

import json
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from .conftest import running
from .test_asked import through
from .test_uploads import bomb

pytestmark = pytest.mark.browser

QUESTION = "How many shapes are there?"
SOON = 30_000  # ms


@pytest.fixture
def open_page(browser):
    """Open the page as one more visitor, of any width, and keep what the browser asks for and complains of."""
    contexts = []

    def opened(address, width=1400, signed=None):
        context = browser.new_context(viewport={"width": width, "height": 900}, permissions=["camera"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.requests, page.errors = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
        page.goto(address)
        if signed:
            page.get_by_label("username").fill(signed[0])
            page.get_by_label("password").fill(signed[1])
            page.get_by_role("button", name="Login").click()
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()


def upload(page, path):
    with page.expect_response(lambda response: "/gradio_api/upload" in response.url and response.status == 200):
        page.locator("input[type=file]").set_input_files(path)
    page.locator("#picture img").wait_for()


def choose(page, label, value):
    box = page.get_by_label(label, exact=True)
    box.click()
    page.locator(f"#{box.get_attribute('aria-controls')}").get_by_role("option", name=value, exact=True).click()


def press(page):
    page.get_by_role("button", name="Ask", exact=True).click()


def ask(page, path, question=QUESTION, pruner=None, budget=None, other=None):
    upload(page, path)
    page.get_by_label("Question").fill(question)
    for label, value in (("Pruner", pruner), ("Compare with", other)):
        if value is not None:
            choose(page, label, value)
    if budget is not None:
        page.get_by_label("Visual tokens").fill(str(budget))
    press(page)


def finished(page, rows):
    """Wait for a table of so many rows; returns what is in them."""
    page.locator(".numbers tbody tr").nth(rows - 1).wait_for()
    page.wait_for_function("document.querySelector('#status').innerText.trim().startsWith('Asking') === false")
    return [row.locator("td").all_inner_texts() for row in page.locator(".numbers tbody tr").all()]


def refused(page):
    """The error that the page shows."""
    return page.get_by_role("alert").inner_text()


def expected(engine, path, pruner, budget, question=QUESTION):
    return through(engine.ask(Image.open(path).convert("RGB"), question, pruner, budget))[1]


def answered(address, path, body=None):
    """The status with which the server answers without a browser; a body that is not bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urlopen(Request(address + path, data, {"Content-Type": "application/json"})) as response:
            return response.status
    except HTTPError as error:
        return error.code


def uploads_in(places: Path) -> list[Path]:
    """Uploads that lie in the temporary folder of a running page."""
    return [path for path in places.glob("llava-web-*/**/*") if path.is_file() and path.parent.name != "scenes"]


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


def test_a_file_that_is_too_large_is_not_taken(site, open_page, drawn, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(Path(drawn[0][0]).read_bytes() + b"\0" * (21 << 20))
    page = open_page(site.address)
    page.locator("input[type=file]").set_input_files(large)
    page.get_by_text("exceed the maximum allowed size of 20").wait_for()
    host, port = site.address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port))
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(large.stat().st_size))
    connection.endheaders()  # and nothing behind them: who is refused need not be read
    assert connection.getresponse().status == 413
    connection.close()
    ask(page, drawn[0][0])
    finished(page, 2)


def test_uploads_are_deleted_when_the_visitor_leaves(site, open_page, drawn, places, tmp_path):
    kept = set(uploads_in(places))
    photo = tmp_path / "mine.png"
    Image.open(drawn[0][0]).rotate(90).save(photo)
    page = open_page(site.address)
    ask(page, photo)
    finished(page, 2)
    assert any(path.name == "mine.png" for path in uploads_in(places))
    page.close()
    for _ in range(100):
        if set(uploads_in(places)) <= kept:
            break
        time.sleep(0.2)
    assert set(uploads_in(places)) <= kept


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


@pytest.mark.parametrize("named", ["/etc/passwd", "https://example.org/a.png", "llava/shapes/checkpoints"])
def test_nothing_that_is_named_is_opened(site, named, trap):
    file = {"path": named, "url": named, "meta": {"_type": "gradio.FileData"}}
    for fn_index in range(8):
        for data in ([file, QUESTION, "cdpruner", 18, "none"], ["", file, file, file, file], [file]):
            body = {"data": data, "fn_index": fn_index, "session_hash": "raw"}
            assert answered(site.address, "/gradio_api/queue/join", body) == 403
    assert answered(site.address, f"/gradio_api/file={named}") == 403
    assert answered(site.address, "/gradio_api/run/ask", {"data": [file]}) == 404
    assert trap.came == []


def test_nobody_gets_past_the_queue(site):
    with urlopen(f"{site.address}/config") as response:
        functions = json.load(response)["dependencies"]
    waiting = [each["id"] for each in functions if each["queue"]]
    assert len(waiting) >= 2  # the button, and the choice of a picture
    for index in waiting:
        body = {"data": [None, QUESTION, "cdpruner", 18, "none"], "fn_index": index, "session_hash": "raw"}
        assert answered(site.address, "/gradio_api/run/predict", body) in (401, 403, 404)


def test_names_and_passwords(browser, open_page, drawn, tmp_path, openai_server):
    logins = tmp_path / "logins"
    logins.write_text("ada:right\n")
    with running("--server", openai_server.url, "--auth-file", str(logins), places=tmp_path) as page:
        assert answered(page.address, "/config") == 401
        assert answered(page.address, "/gradio_api/queue/join", {"data": []}) == 401
        assert answered(page.address, "/gradio_api/upload", {}) == 401
        visitor = browser.new_page()
        visitor.goto(page.address)
        visitor.get_by_label("username").fill("ada")
        visitor.get_by_label("password").fill("wrong")
        visitor.get_by_role("button", name="Login").click()
        visitor.get_by_text("Incorrect Credentials").wait_for()
        visitor.close()
        seen = open_page(page.address, signed=("ada", "right"))
        ask(seen, drawn[0][0])
        assert finished(seen, 1)[0][0] == "71"
        assert all(url.startswith((page.address, "data:", "blob:")) for url in seen.requests)


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
        assert not [*tmp_path.glob("llava-web-*")]  # nothing is left of the visit
        assert "Traceback" not in "\n".join(page.said)
        assert [line for line in page.said if "http" in line] == [page.address]
