"""Which visual tokens an answer was given with: not recorded with the answers, so found out again with the model."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.asking.batch import generation_options
from llava.asking.load import load_model
from llava.asking.prompts import check_conv_mode
from llava.command import with_defaults
from llava.eval.ask import identity
from llava.eval.ask.dataset import QuestionDataset, read_image
from llava.eval.pictures.overlays import kept_masks, views
from llava.eval.pictures.samples import Questions
from llava.flags.model import add_model_args
from llava.records import InputError
from llava.selecting.options import NATIVE, PruningOptions

LOADING = ("anyres", "model_base", "vision_dtype", "dtype", "attention")
"""What of a run the model is loaded with again."""


@dataclass(frozen=True)
class Selection:
    """The visual tokens of one image that the language model read.

    Args:
        masks: for each view of the image which patches are kept, (rows, columns) bool.
        visual_tokens: how many, with newline tokens.
        text: the answer given with them now, decoded greedily.
    """

    masks: list[np.ndarray]
    visual_tokens: int
    text: str


class Selector:
    """A model that prunes the images of questions again, the way it did for answers on record.

    Args:
        checkpoint: folder of the model.
        run: how the answers were made, from the ``metadata`` of one; layout, base and numerics are taken over, as far
            as the device has them: a CPU has neither float16 in any reasonable time nor flash attention.
        device: where it runs; as ``--device``.

    Raises:
        InputError: the checkpoint does not load, or is another one than that which answered.
    """

    def __init__(self, checkpoint: str, run: Mapping[str, Any], device: str | None = None):
        chosen = {name: run[name] for name in LOADING if name in run}
        chosen["attn_implementation"] = chosen.pop("attention", None)
        if device == "cpu" or not torch.cuda.is_available():
            beyond = ("float16", "flash_attention_2")
            chosen = {name: value for name, value in chosen.items() if value not in beyond}
        _refuse_another(checkpoint, run)
        options = Namespace(model_path=checkpoint, device=device, **chosen)
        parser = ArgumentParser()
        add_model_args(parser)
        self.loaded = load_model(with_defaults(options, parser), None)

    @property
    def device(self) -> str:
        """Where the model runs, and in which precision."""
        return f"{self.loaded.model.device} in {str(self.loaded.model.dtype).removeprefix('torch.')}"

    def dataset(self, questions: Questions, conv_mode: str) -> QuestionDataset:
        """The questions as the model reads them."""
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        processor = self.loaded.image_processor
        return questions.make_dataset(questions.samples, tokenizer, processor, model.config, check_conv_mode(conv_mode))

    def views(self, dataset: QuestionDataset, index: int) -> list[Image.Image]:
        """What the encoder sees of a question's image: one square, or the base tile and the grid."""
        sample = dataset.samples[index]
        return views(read_image(sample.image, sample.question_id), self.loaded.image_processor, dataset.preparer.config)

    def select(self, dataset: QuestionDataset, index: int, metadata: Mapping[str, Any]) -> Selection:
        """Ask a question again.

        Args:
            metadata: of the answer, for pruner, options, scope, layer, positions and the cutting of texts.
        """
        model, item, run = self.loaded.model, dataset.item(index, dataset[index]), metadata["run"]
        try:
            model.pruning = PruningOptions.read(metadata, NATIVE)
        except (TypeError, ValueError) as error:
            raise InputError(f"the answers name a pruner that is not here: {error}") from error
        decoding = {name: run[name] for name in ("num_beams", "max_new_tokens") if name in run}
        (answer,) = self.loaded.answer_items([item], generation_options(**decoding))
        keep = model.last_prune.keep
        masks = kept_masks(None if keep is None else keep[0], item.sizes[0], model)
        return Selection(masks, answer.visual_tokens, answer.text)


def _refuse_another(checkpoint: str, run: Mapping[str, Any]) -> None:
    """Raise InputError where a checkpoint has other files than the one that a run notes."""
    noted = run.get("files", {}).get("checkpoint")
    files = identity.of_run(checkpoint=checkpoint).get("checkpoint")
    if noted and files and identity.digest(files) != noted:
        raise InputError(f"--checkpoint {checkpoint}: has other files than the one that gave the answers")
