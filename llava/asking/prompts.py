"""From the text of a question to the prompt the language model reads."""

from typing import Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from llava.records import InputError
from llava.utils import encodable


def check_conv_mode(conv_mode: str) -> str:
    """Return ``conv_mode`` if there is such a conversation template.

    Raises:
        InputError: no such template; lists them all.
    """
    if not isinstance(conv_mode, str) or conv_mode not in conv_templates:
        raise InputError(f"--conv-mode {conv_mode!r} is unknown; valid are {', '.join(sorted(conv_templates))}")
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


def first_turn(user_text: str, conv_mode: str) -> str:
    """The prompt of a conversation that holds one user turn and waits for the answer."""
    conversation = conv_templates[conv_mode].copy()
    conversation.append_message(conversation.roles[0], user_text)
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()
