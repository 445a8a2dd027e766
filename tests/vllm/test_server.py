"""vLLM's OpenAI server and OpenAI's own client, each in a process of its own, as users have them."""

import base64
import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from llava.asking.prompts import lmms_query

from .serving import Asked

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("vllm")

PRUNED = '{"visual_pruner": {"pruner": "cdpruner", "visual_token_num": 18}}'
SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--dtype", "float32", "--enforce-eager"]
SERVER += ["--max-model-len", "512", "--mm-processor-kwargs", '{"backend": "pil"}']
START_SECONDS = 300


def environment() -> dict[str, str]:
    own = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL")
    return {name: value for name, value in os.environ.items() if name not in own}


@contextmanager
def served(checkpoint, overrides: str, log):
    """The address of a server that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVER, "--model", str(checkpoint), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--hf-overrides", overrides]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def wait_for(address: str, process: subprocess.Popen, log) -> None:
    beginning = time.monotonic()
    while time.monotonic() - beginning < START_SECONDS:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def message(asked: Asked) -> dict:
    """A user's turn as OpenAI's clients say it."""
    content = [{"type": "text", "text": lmms_query(asked.text)}]
    for image in asked.images:
        buffer = io.BytesIO()
        image.save(buffer, "png")
        address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": address}})
    return {"role": "user", "content": content}


def test_openais_client_gets_this_projects_answers_and_streams_them(shapes_hf, shapes, questions, tmp_path):
    openai = pytest.importorskip("openai")
    asked = [Asked(f"<image>\n{lmms_query(each.text)}", each.images) for each in questions[:8]]
    own = shapes.ask(asked, pruner="cdpruner", visual_token_num=18)
    with served(shapes_hf, PRUNED, tmp_path / "server.log") as address:
        client = openai.OpenAI(base_url=address, api_key="none")
        known = {"model": str(shapes_hf), "temperature": 0, "max_tokens": 8}
        # vLLM's chat leaves the first token to the template, which leaves it to the tokenizer.
        known["extra_body"] = {"add_special_tokens": True, "return_token_ids": True}
        for each, expected in zip(asked, own, strict=True):
            answer = client.chat.completions.create(messages=[message(each)], **known)
            assert answer.prompt_token_ids == expected.prompt, "the chat template says LLaVA's own prompt"
            assert answer.choices[0].token_ids == expected.answer
            assert answer.usage.prompt_tokens == len(expected.prompt)
            pieces = client.chat.completions.create(messages=[message(each)], stream=True, **known)
            streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
            assert streamed == answer.choices[0].message.content != ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ('{"visual_pruner": {"pruner": "cdprune", "visual_token_num": 18}}', "unknown pruner 'cdprune'; the known"),
        ('{"visual_pruner": {"pruner": "fastv", "visual_token_num": 18}}', "fastv cannot be served: it chooses inside"),
    ],
)
def test_options_that_cannot_be_served_end_the_start(shapes_hf, overrides, words):
    command = [*SERVER, "--model", str(shapes_hf), "--hf-overrides", overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=START_SECONDS)
    last = done.stderr.strip().splitlines()[-3:]
    assert done.returncode != 0 and any(f"visual_pruner: {words}" in line for line in last), done.stderr[-2000:]
