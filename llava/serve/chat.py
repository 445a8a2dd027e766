"""A conversation of several turns about one image."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from transformers import TextStreamer

from llava.asking.batch import pad_token_id, stack_images
from llava.asking.load import LoadedModel
from llava.asking.losses import without_placeholders
from llava.asking.prompts import image_token, user_query
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.eval.ask.loop import warn_of_losses
from llava.mm_utils import KeywordsStoppingCriteria, process_images, tokenizer_image_token


def without_marks(query: str) -> str:
    """A turn without the text that stands for an image: a turn that says ``<image>`` shows no second one."""
    return without_placeholders(query)[0]


class AnswerStreamer(TextStreamer):
    """Hands on an answer piece by piece while it is generated, up to the template's separator.

    Args:
        tokenizer: decodes the ids; special tokens are dropped.
        stop: text that ends the answer and is no part of it.
        show: called with every new piece, never with any of ``stop``.
    """

    def __init__(self, tokenizer: Any, stop: str, show: Callable[[str], None]):
        super().__init__(tokenizer, skip_special_tokens=True)
        self.stop = stop
        self.show = show
        self.text = ""
        self.shown = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Show what is certain to belong to the answer: a beginning of ``stop`` is held back until it is told apart."""
        self.text += text
        before, found, _ = self.text.partition(self.stop)
        ready = len(before)
        if not found and not stream_end:
            ready -= max(n for n in range(len(self.stop)) if before.endswith(self.stop[:n]))
        if ready > self.shown:
            self.show(self.text[self.shown : ready])
            self.shown = ready


class Chat:
    """A conversation about one image, which the model sees anew, and prunes for the question, at every turn.

    Args:
        loaded: the model.
        image: what the conversation is about.
        conv_mode: conversation template.

    Attributes:
        conversation: the turns so far; answers stand in it without the separator that follows them in the prompt.
    """

    def __init__(self, loaded: LoadedModel, image: Image.Image, conv_mode: str):
        self.loaded = loaded
        self.image_size = image.size
        model = loaded.model
        (pixels,) = process_images([image], loaded.image_processor, model.config)
        self.images = stack_images([pixels.to(model.device, model.dtype)])
        self.conversation = conv_templates[conv_mode].copy()

    @property
    def stop(self) -> str:
        """What follows an answer in the template."""
        return self.conversation.sep2 or self.conversation.sep

    def prompt(self, query: str) -> str:
        """Add the user's turn, the image in front if it is the first one, and return the prompt for the answer."""
        conversation, query = self.conversation, without_marks(query)
        if not conversation.messages:
            query = f"{image_token(self.loaded.model.config)}\n{query}"
        conversation.append_message(conversation.roles[0], query)
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()

    @torch.inference_mode()
    def ask(self, query: str, show: Callable[[str], None] = lambda piece: None, **generation: Any) -> str:
        """Answer the user's next turn.

        Args:
            show: called with every piece of the answer as it comes.
            generation: keywords of ``generate``, from ``generation_options``.
        """
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        input_ids = tokenizer_image_token(self.prompt(query), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
        input_ids = input_ids.unsqueeze(0).to(model.device)
        output_ids = model.generate(
            input_ids,
            images=self.images,
            image_sizes=[self.image_size],
            texts=[user_query(query)],
            pad_token_id=pad_token_id(tokenizer),
            streamer=AnswerStreamer(tokenizer, self.stop, show),
            stopping_criteria=[KeywordsStoppingCriteria([self.stop], tokenizer, input_ids)],
            **generation,
        )
        warn_of_losses(model, tokenizer, output_ids, [user_query(query)], generation)
        text = tokenizer.batch_decode(output_ids, skip_special_tokens=True)[0]
        answer = text.partition(self.stop)[0].strip()
        self.conversation.messages[-1][-1] = without_marks(answer)
        return answer
