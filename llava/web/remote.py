"""A server that speaks OpenAI's chat API, which prunes as it was started."""

import base64
import io
import json
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from PIL import Image, ImageOps

from llava.records import InputError
from llava.web.asked import Told, streamed

TIMEOUT_S = 120
LONGEST_SIDE = 2048  # pixels; an encoder sees fewer, and a request is no place for more
SAID = 300  # characters of what a server says about an error


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: the key and the visitors' pictures go to the server that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Remote:
    """Answers with a server.

    Args:
        url: its address, with or without ``/v1``.
        key: sent as a bearer token; None is not sent.
        max_new_tokens: longest answer.
        at_once: requests at a time.

    Raises:
        InputError: the server does not answer, or serves no model.
    """

    def __init__(self, url: str, key: str | None, max_new_tokens: int, at_once: int):
        self.url = url.rstrip("/") + ("" if urlsplit(url).path.strip("/") else "/v1")
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.max_new_tokens, self.open = max_new_tokens, build_opener(_Stay()).open
        self.pool = ThreadPoolExecutor(at_once, thread_name_prefix="answer")
        try:
            with self.open(Request(f"{self.url}/models", headers=self.headers), timeout=TIMEOUT_S) as response:
                served = json.load(response)["data"][0]
            self.name, self.is_vllm = str(served["id"]), served.get("owned_by") == "vllm"
        except (HTTPException, OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"--server {url}: does not say which model it serves: {error}") from error

    def ask(self, picture: Image.Image, question: str) -> Generator[str, None, Told]:
        """Yield the answer as it grows, and return what came of it.

        Raises:
            InputError: the server cannot be reached, or refuses; in words for the visitor.
        """
        return streamed(self.pool, lambda show: self._call(picture, question, show))

    def _call(self, picture: Image.Image, question: str, show: Callable[[str], Any]) -> Told:
        body = json.dumps(self.request_of(picture, question)).encode()
        text, first, usage, ended, start = "", None, {}, None, time.perf_counter()
        try:
            request = Request(f"{self.url}/chat/completions", body, self.headers)
            with self.open(request, timeout=TIMEOUT_S) as response:
                for event in events(response):
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", ())[:1]:
                        ended = choice.get("finish_reason") or ended
                        if piece := choice.get("delta", {}).get("content"):
                            first = time.perf_counter() - start if first is None else first
                            text += piece
                            show(piece)
        except HTTPError as error:
            raise InputError(f"The server refuses the question: {error.code}, {_said(error)}") from error
        except (HTTPException, OSError, ValueError) as error:
            raise InputError("The server cannot be reached, or broke off its answer.") from error
        notes = [f"The answer ends after {self.max_new_tokens} tokens, the most here."] * (ended == "length")
        seconds = time.perf_counter() - start
        return Told(text.strip(), seconds, first, prompt_tokens=usage.get("prompt_tokens"), notes=notes)

    def request_of(self, picture: Image.Image, question: str) -> dict[str, Any]:
        """The body of a request for a greedy, streamed answer."""
        if max(picture.size) > LONGEST_SIDE:
            picture = ImageOps.contain(picture, (LONGEST_SIDE, LONGEST_SIDE))
        written = io.BytesIO()
        picture.save(written, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        body = {"model": self.name, "messages": [{"role": "user", "content": content}], "temperature": 0}
        body |= {"max_tokens": self.max_new_tokens, "stream": True, "stream_options": {"include_usage": True}}
        return body | ({"add_special_tokens": True} if self.is_vllm else {})  # vLLM's chat drops the first token


def events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to its end.

    Raises:
        ValueError: one that is none, or one that reports an error.
    """
    for line in lines:
        kind, _, data = line.decode("utf-8").strip().partition(":")
        if kind != "data":
            continue
        if data.strip() == "[DONE]":
            return
        event = json.loads(data)
        if not isinstance(event, dict) or event.get("error"):
            raise ValueError("the server reports an error")
        yield event


def _said(error: HTTPError) -> str:
    """What a server says about an error, in one short line."""
    try:
        body = json.loads(error.read(1 << 16))
        told = body.get("error", body)
        text = str(told.get("message", "") if isinstance(told, dict) else told)
    except (OSError, ValueError, AttributeError):
        text = ""
    return " ".join(text.split())[:SAID] or str(error.reason)
