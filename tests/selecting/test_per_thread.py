"""State of calls: one for each thread, none in copies."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

from llava.selecting.per_thread import Inherited, PerThread


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


def test_a_value_is_its_owners_unless_a_thread_sets_its_own():
    held = Inherited("given")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: held.value).result() == "given"
        held.value = "changed"
        assert other.submit(lambda: held.value).result() == "changed"
        other.submit(setattr, held, "value", None).result()
        assert other.submit(lambda: held.value).result() is None and held.value == "changed"
