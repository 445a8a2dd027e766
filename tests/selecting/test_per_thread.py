"""State of calls: one for each thread, none in copies."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

from llava.selecting.per_thread import PerThread


def test_a_thread_does_not_see_the_value_of_another():
    held = PerThread(list)
    held.value.append("mine")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: held.value).result() == []
        other.submit(lambda: held.value.append("theirs")).result()
    assert held.value == ["mine"]


def test_there_is_none_before_it_is_set():
    held = PerThread()
    assert held.value is None
    held.value = 3
    assert held.value == 3


def test_copies_start_anew():
    held = PerThread(list)
    held.value.append(1)
    assert copy.deepcopy(held).value == pickle.loads(pickle.dumps(held)).value == []
    assert held.value == [1]
