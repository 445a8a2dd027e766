"""A conversation of several turns about one image."""

from typing import Any

from PIL import Image

from llava.asking.llava import Item, LlavaModel
from llava.asking.losses import warn_of_losses, without_placeholders
from llava.asking.model import Show
from llava.asking.prompts import user_query
from llava.asking.questions import Answer
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates


def without_marks(query: str) -> str:
    """A turn without the text that stands for an image: a turn that says ``<image>`` shows no second one."""
    return without_placeholders(query)[0]


class Chat:
    """A conversation about one image, which the model sees anew, and prunes for the question, at every turn.

    Args:
        model: answers.
        image: what the conversation is about.
        conv_mode: conversation template.

    Attributes:
        conversation: the turns so far; answers stand in it without the separator that follows them in the prompt.
    """

    def __init__(self, model: LlavaModel, image: Image.Image, conv_mode: str):
        self.model = model
        self.image_size = image.size
        self.pixels = model.preparer.pixels(image).to(model.model.device, model.model.dtype)
        self.conversation = conv_templates[conv_mode].copy()

    @property
    def stop(self) -> str:
        """What follows an answer in the template."""
        return self.conversation.sep2 or self.conversation.sep

    def prompt(self, query: str) -> str:
        """Add the user's turn, the image in front if it is the first one, and return the prompt for the answer."""
        conversation, query = self.conversation, without_marks(query)
        if not conversation.messages:
            query = f"{DEFAULT_IMAGE_TOKEN}\n{query}"
        conversation.append_message(conversation.roles[0], query)
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()

    def ask(self, query: str, show: Show = lambda piece: None, **generation: Any) -> Answer:
        """Answer the user's next turn.

        Args:
            show: called with every piece of the answer as it comes.
            generation: keywords of ``generate``, from ``generation_options``.
        """
        ids = self.model.preparer.encode(self.prompt(query))
        item = Item(ids, [self.pixels], [self.image_size], user_query(query))
        (answer,) = self.model.answer_items([item], generation, show, self.stop)
        warn_of_losses([answer])
        self.conversation.messages[-1][-1] = without_marks(answer.text)
        return answer
