"""The question in a prompt, and the way it takes to the encoder: as bytes beside an image's pixels."""

import torch
from torch import Tensor

from llava.asking.prompts import lmms_query
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.utils import encodable

QUESTION = "question"
"""The keyword with which a client may name the question, and the field that takes it to the encoder."""
PICTURE_SIZE = "picture_size"
"""The field that takes width and height of a picture to the encoder, where a pruner reads its border."""
TURNS = (
    ("<|im_start|>user", ("<|im_end|>",)),
    ("[INST]", ("[/INST]",)),
    ("USER:", ("ASSISTANT:",)),
    ("Human:", ("###", "Assistant:")),
)
"""How a turn of the user begins in LLaVA's conversation templates, and how it may end."""
SYSTEM = ("<<SYS>>", "<</SYS>>")
END = 0  # no text has this byte; with it no question is empty


def question_of(prompt: str) -> str:
    """The last turn of the user without the images' tokens and LLaVA's two instruction suffixes.

    A prompt of no template that is known is one turn.
    """
    starts = {(prompt.rfind(start), start, ends) for start, ends in TURNS if start in prompt}
    if starts:
        place, start, ends = max(starts)
        prompt = prompt[place + len(start) :]
        for end in ends:
            prompt = prompt.split(end)[0]
    if SYSTEM[0] in prompt and SYSTEM[1] in prompt:  # Llama 2 puts its system prompt into the first turn
        prompt = prompt.split(SYSTEM[1], 1)[1]
    # A converted tokenizer begins a word behind an image, which is read back as a space.
    return lmms_query(prompt.replace(f"{DEFAULT_IMAGE_TOKEN} ", DEFAULT_IMAGE_TOKEN))


def to_bytes(question: str) -> Tensor:
    """(L,) uint8, of at least one byte."""
    return torch.tensor([*encodable(question).replace("\0", "").encode(), END], dtype=torch.uint8)


def from_bytes(row: Tensor) -> str:
    """The question that ``to_bytes`` was given; what stands behind its end is padding."""
    return bytes(row.tolist()).split(bytes([END]))[0].decode()
