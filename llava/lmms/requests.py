"""lmms-eval's requests as questions, and its generation settings as keywords of ``generate``."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from llava.asking.batch import check_decoding
from llava.asking.questions import Question

MAX_NEW_TOKENS = 1024
PASSED_ON = (
    *("temperature", "top_p", "top_k", "num_beams", "max_new_tokens", "min_new_tokens"),
    *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "early_stopping"),
)
"""Generation settings of a task that reach ``generate`` under their own names."""
UNNAMED_STOP = "\n\n"
"""The stop string that lmms-eval gives to tasks that name none; its wrappers of LLaVA and Qwen do not stop there."""


def question_of(args: tuple, documents: Mapping[str, Mapping[str, Any]]) -> Question:
    """Read the arguments of a request, of ``generate_until`` or of ``loglikelihood``.

    Args:
        args: (text, generation settings or continuation or the continuation's rule, rule of the visuals, document,
            task, split); text and continuation alone where nothing is shown.
        documents: the data sets of the tasks, task by task and split by split.
    """
    text, second, *rest = args
    if not rest:
        return Question(text, continuation=second)
    rule, doc_id, task, split = rest
    documents_of_split, name = documents[task][split], f"{task}, document {doc_id}"

    def load_visuals() -> list[Any]:
        return flat(rule(documents_of_split[doc_id]))

    if isinstance(second, Mapping):
        return Question(text, load_visuals, name, generation=second)
    continuation = second(documents_of_split[doc_id]) if callable(second) else second
    return Question(text, load_visuals, name, continuation=str(continuation))


def flat(visuals: Any) -> list[Any]:
    """The visuals of a document: without None, and without the lists that some tasks put around several images."""
    found: list[Any] = []
    for visual in visuals or []:
        images = isinstance(visual, list | tuple) and all(isinstance(each, Image.Image) for each in visual)
        found += visual if images else [] if visual is None else [visual]
    return found


def decoding(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of ``generate`` for a task's generation settings: greedy unless these have a temperature above 0.

    Raises:
        ValueError: a setting that is read is out of its bounds.
    """
    passed = {key: generation[key] for key in PASSED_ON if generation.get(key) is not None}
    temperature = check_decoding({"temperature": passed.pop("temperature", 0)})["temperature"]
    options = {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": 1, "use_cache": True} | passed
    if temperature > 0 and generation.get("do_sample", True):
        return options | check_decoding(options) | {"do_sample": True, "temperature": temperature}
    sampling = ("top_p", "top_k")  # greedy decoding does not read them, and tasks leave any value there
    options = {key: value for key, value in options.items() if key not in sampling}
    return options | check_decoding(options) | {"do_sample": False}


def ignored(generation: Mapping[str, Any]) -> list[str]:
    """Names of the generation settings that nothing here reads."""
    return sorted(set(generation) - {*PASSED_ON, "do_sample", "until"})


def stops(generation: Mapping[str, Any]) -> list[str]:
    """The strings at which an answer ends, without the one that stands for none."""
    until = generation.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop and stop != UNNAMED_STOP]


def cut(text: str, stops: Sequence[str]) -> str:
    """An answer up to the first of ``stops`` in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
