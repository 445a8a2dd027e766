"""What strangers may do to a page that listens, with and without a browser."""

import json
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from .conftest import running
from .visitor import QUESTION, ask, finished

pytestmark = pytest.mark.browser


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
    assert waiting
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
