"""Loading without what Transformers prints of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

_one_at_a_time = RLock()
"""How much Transformers says is the process's: of two threads, a second would keep the silence of the first."""


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load a part of a model without a word: its bar would be a second one beside the language model's.

    Of half a CLIP, Transformers would also list the other half's weights, which is no news.
    """
    with _one_at_a_time:
        level, hook = transformers_logging.get_verbosity(), transformers_logging.set_tqdm_hook(_hidden)
        transformers_logging.set_verbosity_error()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            transformers_logging.set_tqdm_hook(hook)


def _hidden(make: Any, args: Any, options: dict[str, Any]) -> Any:
    return tqdm(*args, **options | {"disable": True})
