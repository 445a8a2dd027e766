import asyncio
import json

import pytest

from llava.web.guard import MOST_STORED, Guard
from llava.web.uploads import LARGEST_FILE

JOIN = "/gradio_api/queue/join"


@pytest.fixture
def ask(tmp_path):
    """Ask the guard of a folder; returns the status and the headers, or the body that reached what it guards."""
    (tmp_path / "a.png").write_bytes(b"x")

    async def app(scope, receive, send):
        body, more = b"", scope["method"] == "POST"
        while more:
            part = await receive()
            body, more = body + part["body"], part["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"reached", body)]})

    def asked(method, path, body=b"", **headers):
        sent, parts = [], [body[: len(body) // 2], body[len(body) // 2 :]]

        async def receive():
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(event):
            sent.append(event)

        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": named}
        asyncio.run(Guard(app, tmp_path)(scope, receive, send))
        return sent[0]["status"], {name.decode(): value for name, value in sent[0]["headers"]}

    return asked


@pytest.mark.parametrize(
    "path", ["/", "/config", "/theme.css", "/assets/x.js", "/static/a.png", "/gradio_api/queue/data", "/login_check"]
)
def test_what_the_page_asks_for_passes(ask, path):
    status, headers = ask("GET", path)
    assert status == 200 and "reached" in headers
    assert b"default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/gradio_api/run/ask"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/ask"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/proxy=https://example.org"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/docs"),
        ("PUT", "/"),
        ("DELETE", JOIN),
    ],
)
def test_all_else_is_not_here(ask, method, path):
    status, headers = ask(method, path)
    assert status == 404 and "reached" not in headers


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "https://example.org/a.png", "{}/../x", "%2Fetc%2Fpasswd", "", "a.png", "\0", "x" * 9000]
)
def test_files_outside_the_uploads_are_nobodys(ask, tmp_path, name):
    name = name.replace("{}", str(tmp_path))
    assert ask("GET", f"/gradio_api/file={name}")[0] == 403
    body = json.dumps({"data": [{"path": name, "meta": {"_type": "gradio.FileData"}}]}).encode()
    assert ask("POST", JOIN, body)[0] == ask("POST", "/gradio_api/run/predict", body)[0] == 403


def test_uploads_are_read(ask, tmp_path):
    path = str(tmp_path / "a.png")
    assert ask("GET", f"/gradio_api/file={path}")[0] == 200
    body = json.dumps({"data": [{"path": path, "url": "http://h/a"}, "How many?", None]}).encode()
    status, headers = ask("POST", JOIN, body)
    assert status == 200 and headers["reached"] == body


@pytest.mark.parametrize(
    "value",
    [
        {"path": 7},
        {"path": ["/etc/passwd"]},
        {"x": [{"y": {"path": "/etc/passwd"}}]},
        {"path": None, "url": "data:image/png;base64,AAAA"},
    ],
)
def test_nothing_is_named_wherever_it_stands(ask, value):
    assert ask("POST", JOIN, json.dumps({"data": ["q", value]}).encode())[0] == 403


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_question(ask, body):
    assert ask("POST", JOIN, body)[0] == 400


def test_sizes(ask):
    assert ask("POST", JOIN, b" " * (1 << 18) + b"1")[0] == 413
    upload = "/gradio_api/upload"
    assert ask("POST", upload)[0] == 411
    assert ask("POST", upload, content_length="x")[0] == 411
    assert ask("POST", upload, content_length=str(LARGEST_FILE + (1 << 17)))[0] == 413
    assert ask("POST", upload, content_length=str(LARGEST_FILE))[0] == 200


def test_uploads_have_only_so_much_room(ask, tmp_path):
    (tmp_path / "below").mkdir()
    with (tmp_path / "below" / "b.png").open("wb") as file:
        file.truncate(MOST_STORED - LARGEST_FILE)
    assert ask("POST", "/gradio_api/upload", content_length=str(LARGEST_FILE))[0] == 507
    assert ask("POST", "/gradio_api/upload", content_length=str(LARGEST_FILE - 1))[0] == 200
