"""The embedded model as the page asks it, its scenes, and servers that listen while a test runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import llava
from llava.web.examples import draw_examples
from llava.web.local import Local

ROOT = Path(__file__).parents[2]
STARTS = 120  # seconds that a server has


@pytest.fixture(scope="session")
def engine() -> Local:
    return Local(llava.load(device="cpu"), max_new_tokens=16, at_once=2)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> list[tuple[str, str]]:
    """Files of scenes, and a question about each."""
    return draw_examples(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def picture(drawn) -> Image.Image:
    return Image.open(drawn[1][0]).convert("RGB")


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")  # while it is there, so is an event loop, which tests of other modules make themselves
def browser():
    """A real browser without a window, with a camera that shows a test pattern."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, extra browser")
    if chromium() is None:
        pytest.skip("needs a Chromium; `apt-get install chromium` has one")
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium has for no root
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    """Open the page as one more visitor, of any width, and keep what the browser asks for and complains of."""
    contexts = []

    def opened(address, width=1400, signed=None):
        context = browser.new_context(viewport={"width": width, "height": 900}, permissions=["camera"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
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


class Running:
    """``python -m llava.web`` as it runs.

    Attributes:
        address: what it printed.
        said: the lines that it wrote, errors among them.
    """

    def __init__(self, process: subprocess.Popen):
        self.process, self.said, self.address = process, [], ""
        ready = threading.Event()

        def read() -> None:
            for line in process.stdout:
                self.said.append(line.rstrip("\n"))
                if line.startswith("http://"):
                    self.address = line.strip()
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        assert ready.wait(STARTS) and self.address, "\n".join(self.said)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running(*flags: str, places: Path, **names: str) -> Iterator[Running]:
    """The page, with temporary files in ``places`` and further variables of its environment."""
    if find_spec("gradio") is None:
        pytest.skip("needs Gradio, extra web")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(places), "PYTHONUNBUFFERED": "1", **names}
    command = [sys.executable, "-m", "llava.web", "--port", "0", *flags]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=places, env=environment, **streams)
    try:
        yield Running(process)
    finally:
        process.kill()
        process.wait()


class Trap:
    """A proxy that answers nobody, and counts who came."""

    def __init__(self):
        self.socket, self.came = socket.create_server(("127.0.0.1", 0)), []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.settimeout(5)
            with connection:
                self.came.append(connection.recv(200))

    @property
    def variables(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        own = "127.0.0.1,localhost"
        return {"HTTP_PROXY": address, "HTTPS_PROXY": address, "ALL_PROXY": address, "NO_PROXY": own} | {
            "http_proxy": address,
            "https_proxy": address,
            "all_proxy": address,
            "no_proxy": own,
        }


@pytest.fixture(scope="session")
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.socket.close()


@pytest.fixture(scope="session")
def places(tmp_path_factory) -> Path:
    """Where the page of ``site`` has its temporary files."""
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="session")
def site(trap, places) -> Iterator[Running]:
    """The page with the embedded model, to which every other host is a proxy that traps."""
    with running(places=places, **trap.variables) as page:
        yield page


class OpenAIServer:
    """A server that speaks as much of OpenAI's API as the page asks for.

    Attributes:
        asked: bodies of the requests, decoded.
        keys: what they had for a key.
        gate: while it is closed, an answer waits behind its first piece.
    """

    def __init__(self):
        self.asked, self.keys, self.status, self.pieces = [], [], 200, ["Six ", "<b>shapes</b>"]
        self.gate = threading.Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, json.dumps({"data": [{"id": "served", "owned_by": "vllm"}]}).encode())

            def do_POST(self):
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers.get("Authorization"))
                if outer.status != 200:
                    self.answer(outer.status, json.dumps({"error": {"message": "too long\nby far"}}).encode())
                    return
                events = [{"choices": [{"delta": {"content": piece}}]} for piece in outer.pieces]
                events += [{"choices": [{"delta": {}, "finish_reason": "length"}]}]
                events += [{"choices": [], "usage": {"prompt_tokens": 71}}]
                self.send_response(200)
                self.end_headers()
                for line in [*(f"data: {json.dumps(event)}" for event in events), ": a comment", "data: [DONE]"]:
                    self.wfile.write(f"{line}\n\n".encode())
                    outer.gate.wait(60)

            def answer(self, status: int, body: bytes):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    server = OpenAIServer()
    yield server
    server.server.shutdown()
    server.server.server_close()
