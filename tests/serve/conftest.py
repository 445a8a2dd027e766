"""A model that says what it is told to, token by token, and remembers what it was given."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPImageProcessorPil, StoppingCriteriaList

from llava.asking.llava import LlavaModel
from llava.constants import IMAGE_TOKEN_INDEX
from llava.selecting.options import PruningOptions


class TalkativeModel:
    """Streams the same reply at every turn, and goes on to speak for the user until it is stopped."""

    device, dtype, pruning = torch.device("cpu"), torch.float32, PruningOptions()
    reply = "It is red."

    def __init__(self, tokenizer, config):
        self.tokenizer, self.config = tokenizer, config
        self.calls = []

    def generate(self, input_ids, streamer, stopping_criteria, **given):
        ids = input_ids[0].tolist()
        self.calls.append(given | {"ids": ids, "system": self.tokenizer.decode(ids[: ids.index(IMAGE_TOKEN_INDEX)])})
        self.last_prune = SimpleNamespace(visual_tokens=[5], newline_tokens=[0], tokens_before=[9])
        criteria = StoppingCriteriaList(stopping_criteria)
        said = []
        for token in self.tokenizer(self.reply, add_special_tokens=False).input_ids:
            said.append(token)
            streamer.put(torch.tensor([token]))
            if criteria(torch.tensor([said]), None).all() or token == self.tokenizer.eos_token_id:
                break
        streamer.end()
        return torch.tensor([said])


@pytest.fixture
def model(llama_tokenizer):
    config = SimpleNamespace(image_aspect_ratio="pad", mm_use_im_start_end=False)
    return TalkativeModel(llama_tokenizer, config)


@pytest.fixture
def loaded(model, llama_tokenizer):
    processor = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return LlavaModel("talkative", llama_tokenizer, model, processor)
