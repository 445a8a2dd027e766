import base64
import io

import pytest
from PIL import Image

from llava.records import InputError
from llava.web.remote import Remote, events

from .test_asked import through

PICTURE = Image.new("RGB", (4000, 100), (200, 10, 10))


def test_an_answer_with_what_the_server_reports(openai_server):
    remote = Remote(openai_server.url, "secret", 16, 1)
    seen, told = through(remote.ask(PICTURE, "How many?"))
    assert seen == ["Six ", "Six <b>shapes</b>"] and told.text == "Six <b>shapes</b>"
    assert told.prompt_tokens == 71 and told.visual_tokens is None and not told.pictures
    assert told.notes == ["The answer ends after 16 tokens, the most here."]
    assert openai_server.keys == ["Bearer secret"]


def test_the_request(openai_server):
    remote = Remote(f"{openai_server.url}/v1/", None, 16, 1)
    through(remote.ask(PICTURE, "How many?"))
    (asked,) = openai_server.asked
    assert openai_server.keys == [None]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("served", 16, 0)
    assert asked["add_special_tokens"] is True  # of vLLM alone
    image, text = asked["messages"][0]["content"]
    assert text == {"type": "text", "text": "How many?"}
    head, data = image["image_url"]["url"].split(",")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/png;base64" and sent.size == (2048, 51)


@pytest.mark.parametrize("status, said", [(400, "400, too long by far"), (302, "302")])
def test_a_server_that_refuses(openai_server, status, said):
    remote = Remote(openai_server.url, None, 16, 1)
    openai_server.status = status
    with pytest.raises(InputError, match=f"The server refuses the question: {said}"):
        through(remote.ask(PICTURE, "How many?"))


def test_a_server_that_is_gone(openai_server):
    remote = Remote(openai_server.url, None, 16, 1)
    openai_server.server.shutdown()
    openai_server.server.server_close()
    with pytest.raises(InputError, match="cannot be reached") as refused:
        through(remote.ask(PICTURE, "How many?"))
    assert openai_server.url not in str(refused.value)  # which is no visitor's to know
    with pytest.raises(InputError, match=f"--server {openai_server.url}: does not say which model"):
        Remote(openai_server.url, None, 16, 1)


def test_streams():
    assert [*events(iter([b"data: {}\n", b"\n", b"event: x\n", b"data: [DONE]\n", b"data: {}"]))] == [{}]
    for line in (b"data: [1]", b"data: x", b'data: {"error": {"message": "no"}}'):
        with pytest.raises(ValueError):
            [*events(iter([line]))]
