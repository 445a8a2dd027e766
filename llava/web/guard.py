"""What reaches Gradio: the requests of the page itself, and no file or address that a visitor names."""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from llava.web.uploads import LARGEST_FILE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

API = "/gradio_api"
FILES = f"{API}/file="
JOIN = f"{API}/queue/join"
ASKING = (JOIN, f"{API}/run/predict")  # the second one for what is too short to wait, as the choice of an example
UPLOAD = f"{API}/upload"
OF_API = "app_id info login_check queue/data startup-events theme.css token upload_progress user"
OF_SITE = "config favicon.ico login_check logout manifest.json robots.txt theme.css user"
GET = ("", *(f"{API}/{name}" for name in OF_API.split()), *(f"/{name}" for name in OF_SITE.split()))
BELOW = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/", FILES)
POST = ("/login", *ASKING, UPLOAD, f"{API}/cancel", f"{API}/reset")
"""The requests of a page; whatever else Gradio offers is not here."""

LARGEST_JSON = 1 << 18
MOST_STORED = 100 * LARGEST_FILE
LARGEST_UPLOAD = LARGEST_FILE + (1 << 16)  # with what stands around a file in a form
SOURCES = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio fills its templates in so
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{kind} {sources}" for kind, sources in SOURCES.items()),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Refused(Exception):
    """A request that is answered with a status and a reason, and goes no further."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Guard:
    """An ASGI middleware.

    Args:
        app: what answers the requests that pass.
        folder: where uploads lie; the files in it are the only ones that a request may name.
    """

    def __init__(self, app: Any, folder: Path):
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
            if scope["method"] == "POST" and scope["path"].rstrip("/") in ASKING:
                receive = _again(await self._read_question(receive))
        except Refused as refused:
            await _refuse(send, refused)
            return
        await self.app(scope, receive, _with_headers(send))

    def _check(self, scope: Scope) -> None:
        """Refuse what the page never asks for."""
        path, method = scope["path"], scope["method"]
        bare = path.rstrip("/")
        if method in ("GET", "HEAD") and (bare in GET or path.startswith(BELOW)):
            if path.startswith(FILES):
                self._check_file(path.removeprefix(FILES))
        elif method != "POST" or bare not in POST:
            raise Refused(404, "not here")
        elif bare == UPLOAD:
            length = dict(scope["headers"]).get(b"content-length", b"").decode()
            if not length.isdecimal():
                raise Refused(411, "an upload says how long it is")
            if int(length) > LARGEST_UPLOAD:
                raise Refused(413, f"at most {LARGEST_FILE // 2**20} MiB are read")
            if int(length) + sum(file.stat().st_size for file in self._stored()) > MOST_STORED:
                raise Refused(507, "no room for another picture now")

    def _stored(self) -> list[Path]:
        """The files of all visitors that are here."""
        return [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]

    def _check_file(self, name: str) -> None:
        try:
            inside = Path(unquote(name)).resolve().is_relative_to(self.folder)
        except (OSError, ValueError):  # a name too long, or with a zero in it
            inside = False
        if not inside:
            raise Refused(403, "files are uploaded, never named")

    async def _read_question(self, receive: Receive) -> bytes:
        """The body of a question, which names no file but an uploaded one."""
        body, more = b"", True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                raise Refused(400, "broken off")
            body, more = body + part.get("body", b""), part.get("more_body", False)
            if len(body) > LARGEST_JSON:
                raise Refused(413, "a question is short")
        try:
            self._check_names(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "no JSON") from error
        return body

    def _check_names(self, value: Any) -> None:
        """Refuse every path outside the uploads, and data in place of an address, wherever they stand."""
        if isinstance(value, list):
            for each in value:
                self._check_names(each)
        elif isinstance(value, dict):
            if (path := value.get("path")) is not None:
                self._check_file(path if isinstance(path, str) else "")
            if str(value.get("url") or "").startswith("data:"):
                raise Refused(403, "pictures are uploaded")
            for each in value.values():
                self._check_names(each)


def _again(body: bytes) -> Receive:
    """A ``receive`` that gives a body that was read already."""
    given = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _with_headers(send: Send) -> Send:
    async def sending(event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            event = {**event, "headers": [*event.get("headers", ()), *headers]}
        await send(event)

    return sending


async def _refuse(send: Send, refused: Refused) -> None:
    body = str(refused).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
