"""What Transformers says of a model that loads is silenced for that while alone."""

import time
from threading import Thread

from transformers.utils import logging as transformers_logging

from llava.model.quiet import quiet_loading


def test_threads_that_load_at_the_same_time_leave_the_verbosity_as_it_was():
    before = transformers_logging.get_verbosity()

    def load(seconds: float) -> None:
        with quiet_loading():
            assert transformers_logging.get_verbosity() == transformers_logging.ERROR
            time.sleep(seconds)

    threads = [Thread(target=load, args=(0.05 * count,)) for count in (1, 2, 3)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert transformers_logging.get_verbosity() == before != transformers_logging.ERROR
