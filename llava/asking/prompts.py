"""From the text of a question to the prompt the language model reads, and to the query that pruners compare with it.

A query is the question as the releases of CDPruner and MFPruner hand it to CLIP's text tower: each program removes its
own instruction suffix and nothing else, so option lists, OCR tokens and hints stay in. The choice changes the scores of
both pruners, which is why the rules, ``..._query``, stand here side by side.
"""

from typing import Any

from llava.asking.losses import without_placeholders
from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.conversation import conv_templates
from llava.records import InputError
from llava.utils import encodable

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."


def check_conv_mode(conv_mode: str, name: str = "conv_mode") -> str:
    """Return ``conv_mode`` if there is such a conversation template; ``name`` is what an error calls it.

    Raises:
        InputError: no such template; lists them all.
    """
    if not isinstance(conv_mode, str) or conv_mode not in conv_templates:
        raise InputError(f"{name} {conv_mode!r} is unknown; valid are {', '.join(sorted(conv_templates))}")
    return conv_mode


def conv_mode_of_plain_model(model_name: str, conv_mode: str) -> str:
    """The ``_mmtag`` variant for a pretrained-only ("plain") model, where that template exists; else ``conv_mode``."""
    is_plain = "plain" in model_name and "finetune" not in model_name.lower()
    tagged = f"{conv_mode}_mmtag"
    return tagged if is_plain and "mmtag" not in conv_mode and tagged in conv_templates else conv_mode


def typed(text: str) -> str:
    """What somebody typed or piped in, without the bytes that mark its encoding and those that no text has."""
    return encodable(text.replace("\0", "").removeprefix("\ufeff"))


def image_token(config: Any) -> str:
    """The text that stands for one image, with start and end marks where the model was trained with them."""
    if getattr(config, "mm_use_im_start_end", False):
        return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return DEFAULT_IMAGE_TOKEN


def first_turn(user_text: str, conv_mode: str, answer: str | None = None) -> str:
    """The prompt of a conversation that holds one user turn, and waits for the answer or holds it with its end."""
    conversation = conv_templates[conv_mode].copy()
    conversation.append_message(conversation.roles[0], user_text)
    conversation.append_message(conversation.roles[1], answer)
    return conversation.get_prompt()


def check_placeholders(query: str, num_images: int) -> None:
    """Raise ``InputError`` when a query has placeholders, but not as many as there are images."""
    placeholders = query.count(IMAGE_PLACEHOLDER)
    if placeholders not in (0, num_images):
        raise InputError(f"--query has {placeholders} {IMAGE_PLACEHOLDER} but --image-file names {num_images} images")


def place_images(query: str, num_images: int) -> str:
    """The user's turn: ``<image>`` at every placeholder or, where there are not as many, per image in front."""
    query = query.replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER)
    if query.count(IMAGE_PLACEHOLDER) == num_images:
        return query.replace(IMAGE_PLACEHOLDER, DEFAULT_IMAGE_TOKEN)
    return f"{DEFAULT_IMAGE_TOKEN}\n" * num_images + without_placeholders(query, IMAGE_PLACEHOLDER)[0]


def with_images(text: str, count: int) -> str:
    """A question that shows ``count`` images: where its ``<image>`` stand if it has that many, else in front."""
    if text.count(DEFAULT_IMAGE_TOKEN) == count:
        return text
    text = without_placeholders(text)[0].strip()
    return f"{' '.join([DEFAULT_IMAGE_TOKEN] * count)}\n{text}" if count else text


def placeholders_lost(text: str, count: int, *others: str) -> int:
    """How many placeholders of a question that shows ``count`` images stand for none; those of ``others`` never do."""
    return max(0, without_placeholders(text, *others)[1] - count)


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
