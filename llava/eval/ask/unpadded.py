"""Questions about images that are cropped, as Q-Bench's are."""

import copy
from collections.abc import Sequence
from typing import Any

from llava.eval.ask.dataset import QuestionDataset
from llava.eval.tasks.base import Sample


class UnpaddedDataset(QuestionDataset):
    """Questions whose images are cropped to their centre where the model's other images are padded.

    LLaVA-1.5 saw Q-Bench like this. Images that the model cuts into tiles are cut as ever.
    """

    def __init__(
        self, samples: Sequence[Sample], tokenizer: Any, image_processor: Any, model_config: Any, conv_mode: str
    ):
        if getattr(model_config, "image_aspect_ratio", None) == "pad":
            model_config = copy.copy(model_config)
            model_config.image_aspect_ratio = None
        super().__init__(samples, tokenizer, image_processor, model_config, conv_mode)
