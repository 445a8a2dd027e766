"""The text that relevance-based pruners compare with the image, for each program that asks questions.

It is the question as the releases of CDPruner and MFPruner hand it to CLIP's text tower: each program removes its own
instruction suffix and nothing else, so option lists, OCR tokens and hints stay in. The choice changes the scores of
both pruners, which is why every rule stands here, by itself.
"""

from llava.asking.losses import without_placeholders
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."


def vqa_query(text: str) -> str:
    """``model_vqa``: the question as it stands."""
    return text


def vqa_loader_query(text: str) -> str:
    """``model_vqa_loader``: the question without the short-answer suffix; all other lines stay."""
    return text.replace(SHORT_ANSWER, "")


def science_query(prompt: str) -> str:
    """``model_vqa_science``: the recorded prompt without image token and option-letter suffix; context stays."""
    return prompt.replace(f"{DEFAULT_IMAGE_TOKEN}\n", "").replace(OPTION_LETTER, "")


def mmbench_query(prompt: str) -> str:
    """``model_vqa_mmbench``: the recorded prompt (hint, question, options), which never holds the suffix."""
    return prompt


def qbench_query(question: str, candidates: str) -> str:
    """``model_vqa_qbench``: question and candidates without the line between them that says to choose."""
    return f"{question}\n{candidates}"


def user_query(query: str) -> str:
    """``run_llava`` and ``cli``: what the user typed, without the placeholders that say where the images go."""
    return without_placeholders(query, IMAGE_PLACEHOLDER)[0].strip()


def lmms_query(text: str) -> str:
    """``llava.asking``: a question without the images' tokens and LLaVA's two instruction suffixes."""
    return text.replace(DEFAULT_IMAGE_TOKEN, "").replace(SHORT_ANSWER, "").replace(OPTION_LETTER, "").strip()
