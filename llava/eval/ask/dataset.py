"""Samples and the dataset that turns them into model input, in worker processes if asked to."""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from llava.asking.llava import Item, Preparer
from llava.asking.losses import without_placeholders
from llava.asking.model import Model
from llava.asking.questions import Answer
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.tasks.base import Sample
from llava.images import open_image

Read = tuple[Tensor, Tensor | None, tuple[int, int] | None]

WINDOW = 64
"""Batches whose questions are sorted together: more would hardly save padding, and read images far out of order."""


class QuestionError(ValueError):
    """A question that cannot be asked; the message names it."""


class ImageError(QuestionError):
    """An image that cannot be read; the message names question and path."""


def read_image(image: Path | bytes, question_id: int | str) -> Image.Image:
    """Open and decode an image completely, in the mode it was stored in.

    Args:
        image: a file, or its content.

    Raises:
        ImageError: the file is missing or broken.
    """
    try:
        return open_image(image)
    except (OSError, ValueError) as error:
        raise ImageError(f"question {question_id!r}: cannot read {_name(image)}: {error}") from error


def _name(image: Path | bytes) -> str:
    return "its image" if isinstance(image, bytes) else f"the image {image}"


def given_by_budgets(answer: Answer) -> dict[str, Any]:
    """What the ``metadata`` of an answer say of budgets, where these depend on what images show."""
    return {"budgets": list(answer.budgets)} if answer.budgets else {}


def check_text(sample: Sample) -> None:
    """Raise ``QuestionError`` for a question that is no text, such as half of a pair of UTF-16 surrogates.

    JSON can hold one; no file and no tokenizer can.
    """
    try:
        (sample.prompt + sample.query).encode()
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise QuestionError(
            f"question {sample.question_id!r}: its text holds {character!r}, which is no character"
        ) from error


class QuestionDataset(Dataset):
    """Samples as the model reads them.

    An item is ``(input_ids, pixels, size)``: the prompt's ids (L,) with ``IMAGE_TOKEN_INDEX`` for the image, the
    preprocessed image (3, H, W), or (tiles, 3, H, W) under anyres, and its original ``(width, height)``. Both are None
    for a question without an image, whose prompt has no ``IMAGE_TOKEN_INDEX`` either.
    """

    unit = "image"

    def __init__(
        self, samples: Sequence[Sample], tokenizer: Any, image_processor: Any, model_config: Any, conv_mode: str
    ):
        self.samples = samples
        self.preparer = Preparer(tokenizer, image_processor, model_config, conv_mode)

    def __len__(self) -> int:
        return len(self.samples)

    def prompt_length(self, index: int) -> int:
        """Tokens of a prompt, its image counted as one; 0 of one that cannot be read."""
        sample = self.samples[index]
        try:
            check_text(sample)
        except QuestionError:
            return 0
        return len(self._encode(sample))

    def __getitem__(self, index: int) -> Read:
        sample = self.samples[index]
        check_text(sample)
        input_ids = self._encode(sample)
        if sample.image is None:
            return input_ids, None, None
        image = read_image(sample.image, sample.question_id)
        try:
            pixels = self.preparer.pixels(image)
        except (ArithmeticError, MemoryError, OSError, TypeError, ValueError) as error:
            raise ImageError(
                f"question {sample.question_id!r}: cannot use {_name(sample.image)} of {image.width} x {image.height} "
                f"pixels, mode {image.mode}: {error}"
            ) from error
        return input_ids, pixels, image.size

    def alike(self, read: Read) -> Hashable:
        """What is the same of items that may share a call of ``generate``."""
        return None

    def item(self, index: int, read: Read, model: Model | None = None) -> Item:
        """An item of this dataset as ``LlavaModel.answer_items`` takes it."""
        input_ids, pixels, size = read
        query = self.samples[index].query
        return Item(input_ids, query=query) if pixels is None else Item(input_ids, [pixels], [size], query)

    def measured(self, read: Read, answer: Answer) -> dict[str, Any]:
        """What the ``metadata`` of an answer say of the tokens of its image: none where there is none."""
        names = ("visual_tokens", "newline_tokens", "tokens_before", "tiles")
        return {name: getattr(answer, name) for name in names} | given_by_budgets(answer)

    def _encode(self, sample: Sample) -> Tensor:
        question, _ = without_placeholders(sample.prompt)  # a text that says <image> shows no second one
        return self.preparer.turn(question if sample.image is None else f"{DEFAULT_IMAGE_TOKEN}\n{question}")


class ErrorsAsItems(Dataset):
    """The indices and items of another dataset; what cannot be asked comes back as the ``QuestionError`` itself.

    An exception raised in a worker would take its whole batch with it.
    """

    def __init__(self, dataset: QuestionDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Read | QuestionError]:
        try:
            return index, self.dataset[index]
        except QuestionError as error:
            return index, error


class LengthSampler:
    """Indices in batches of prompts that are about equally long, so that a batch needs little padding.

    Within a window of ``WINDOW`` batches longer prompts come first. Batches of one keep the order of the questions.
    """

    def __init__(self, dataset: QuestionDataset, batch_size: int):
        self.dataset = dataset
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        indices, size = range(len(self.dataset)), self.batch_size
        for window in (indices[start : start + WINDOW * size] for start in indices[:: WINDOW * size]):
            order = window if size == 1 else sorted(window, key=self.dataset.prompt_length, reverse=True)
            yield from (list(order[start : start + size]) for start in range(0, len(order), size))


def batches(dataset: QuestionDataset, batch_size: int, num_workers: int) -> DataLoader:
    """Lists of up to ``batch_size`` entries of ``ErrorsAsItems(dataset)``, as ``LengthSampler`` groups them."""
    sampler = LengthSampler(dataset, batch_size)
    return DataLoader(ErrorsAsItems(dataset), batch_sampler=sampler, num_workers=num_workers, collate_fn=list)
