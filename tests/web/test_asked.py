import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llava.web.asked import Stopped, streamed


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def through(growing):
    """Everything that a generator yields, and what it returns."""
    seen = []
    while True:
        try:
            seen.append(next(growing))
        except StopIteration as end:
            return seen, end.value


def test_the_text_grows_piece_by_piece(pool):
    def call(show):
        for piece in ("a", "b", "", "c"):
            show(piece)
        return 7

    assert through(streamed(pool, call)) == (["a", "ab", "ab", "abc"], 7)


def test_a_piece_is_seen_before_the_call_ends(pool):
    seen = threading.Event()

    def call(show):
        show("first")
        assert seen.wait(10)
        return "end"

    growing = streamed(pool, call)
    assert next(growing) == "first"
    seen.set()
    assert through(growing) == ([], "end")


def test_what_the_call_raises_is_raised(pool):
    def call(show):
        show("a")
        raise ValueError("no")

    growing = streamed(pool, call)
    assert next(growing) == "a"
    with pytest.raises(ValueError, match="no"):
        next(growing)


def test_a_call_ends_at_its_next_piece_when_nobody_listens(pool):
    ended, closed = [], threading.Event()

    def call(show):
        show("a")
        closed.wait(10)
        try:
            show("b")
        except Stopped:
            ended.append(True)
            raise

    growing = streamed(pool, call)
    next(growing)
    growing.close()
    closed.set()
    assert pool.submit(lambda: ended).result() == [True]
