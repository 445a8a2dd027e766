"""A checkpoint that vLLM answers with: questions in, answers out, by its continuous batching."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, LlavaNextConfig

from llava.asking.batch import pad_token_id
from llava.asking.chat import History
from llava.asking.llava import Preparer
from llava.asking.model import Model, Read, Show
from llava.asking.prompts import lmms_query, place_images, user_query, with_images
from llava.asking.questions import Question
from llava.constants import IMAGE_TOKEN_INDEX
from llava.convert.configs import ARCHITECTURES, llava_settings
from llava.mm_utils import get_model_name_from_path
from llava.model.checkpoint import checkpoint_folder, naming, read_config
from llava.pruners import Pruner, name_of
from llava.selecting.options import AS_SET, NATIVE, PruningOptions
from llava.vllm import ENTRY
from llava.vllm.images import Sizes
from llava.vllm.options import Served, served
from llava.vllm.questions import QUESTION

PIXELS = {"backend": "pil"}  # LLaVA's own pixels; torchvision's, which Transformers takes where it is, differ a little


@dataclass(frozen=True)
class Item:
    """A question as the engine reads it.

    Args:
        ids: the prompt (L,), ``IMAGE_TOKEN_INDEX`` for every image.
        images: as they are.
        query: what relevance-based pruners compare with them.
        lost: what was lost of the question already, by the names of ``llava.asking.losses``.
    """

    ids: Tensor
    images: Sequence[Image.Image] = ()
    query: str = ""
    lost: Mapping[str, Any] = field(default_factory=dict)


class EngineModel(Model):
    """A checkpoint in Transformers' format, loaded by vLLM in this process or in processes of its own.

    Args:
        name: what answers call it.
        llm: a ``vllm.LLM``.
        conv_mode: conversation template.
    """

    host = NATIVE

    def __init__(self, name: str, llm: Any, conv_mode: str):
        config = llm.llm_engine.model_config.hf_config
        tokenizer = llm.get_tokenizer()
        ends = SimpleNamespace(eos_token_id=tokenizer.eos_token_id)
        super().__init__(name, tokenizer, SimpleNamespace(config=config, generation_config=ends))
        self.llm = llm
        self.preparer = Preparer(tokenizer, None, SimpleNamespace(), conv_mode)
        self._pruned = served(config)
        self._check_plugin()
        whole = self._pruned or Served(PruningOptions(), llava_settings(config), None)
        self._sizes = Sizes(whole, config.vision_config, isinstance(config, LlavaNextConfig))

    def _check_plugin(self) -> None:
        """Refuse answers that would not be pruned, as of a vLLM whose ``VLLM_PLUGINS`` leaves the plugin out."""
        from vllm.model_executor.model_loader import get_model_architecture

        loaded, _ = get_model_architecture(self.llm.llm_engine.model_config)
        if self._pruned is not None and not loaded.__module__.startswith("llava.vllm"):
            raise ValueError(f"vLLM did not load its plugin llava: VLLM_PLUGINS is {os.environ.get('VLLM_PLUGINS')!r}")

    def item(self, question: Question) -> Item:
        images = question.load_visuals()
        user = with_images(question.text, len(images))
        return Item(self.preparer.turn(user), images, lmms_query(question.text))

    @property
    def options(self) -> PruningOptions:
        return PruningOptions() if self._pruned is None else self._pruned.options

    def prune(self, pruner: str | Pruner | None, **options: Any) -> None:
        raise ValueError("an engine prunes as it was started: give the pruner to load_engine")

    def asked(self, question: str, images: Sequence[Any]) -> Item:
        return Item(self.preparer.turn(place_images(question, len(images))), images, user_query(question))

    def history(self, visuals: Sequence[Any]) -> History:
        raise ValueError("an engine answers single questions: serve the checkpoint with vLLM for conversations")

    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        raise NotImplementedError("likelihoods are not read from vLLM: score with the model's own format")

    def _generate(
        self, items: Sequence[Item], generation: Mapping[str, Any], show: Show | None, stop: str, pruning: Any
    ) -> tuple[Tensor, Read]:
        from vllm import SamplingParams

        if pruning is not AS_SET:
            raise ValueError("an engine prunes every call as it was started: `pruning` cannot be brought to one call")

        temperature = generation.get("temperature", 0.0)
        sampling = SamplingParams(
            temperature=temperature,
            top_p=generation.get("top_p") or 1.0,
            max_tokens=generation["max_new_tokens"],
        )
        outputs = self.llm.generate([self._prompt(item) for item in items], sampling, use_tqdm=False)
        rows = [torch.tensor(output.outputs[0].token_ids) for output in outputs]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id(self.tokenizer))
        if show:
            show(self.tokenizer.decode(ids[0], skip_special_tokens=True))
        return ids, self._read(items, [output.prompt_token_ids for output in outputs])

    def _prompt(self, item: Item) -> dict[str, Any]:
        placeholder = self.model.config.image_token_index
        ids = torch.where(item.ids == IMAGE_TOKEN_INDEX, placeholder, item.ids).tolist()
        if not item.images:
            return {"prompt_token_ids": ids}
        keywords = {} if self._pruned is None else {"mm_processor_kwargs": {QUESTION: item.query}}
        images = [image.convert("RGB") for image in item.images]
        return {"prompt_token_ids": ids, "multi_modal_data": {"image": images}, **keywords}

    def _read(self, items: Sequence[Item], prompts: Sequence[list[int]]) -> Read:
        for item, prompt in zip(items, prompts, strict=True):
            kept = prompt.count(self.model.config.image_token_index)
            whole = [self._sizes.visual(image.size) for image in item.images]
            before = sum(visual.length for visual in whole)
            self.visual_tokens.update(images=len(whole), kept=kept, before=before)
            tiles = sum(self._sizes.tiles(image.size) for image in item.images)
            yield {"visual_tokens": kept, "tokens_before": before, "tiles": tiles, "prompt_tokens": len(prompt)}, {}


def load_engine(
    checkpoint: str, pruner: Pruner | None, conv_mode: str, pruning: Mapping[str, Any], **engine: Any
) -> EngineModel:
    """Start vLLM with a checkpoint in Transformers' format.

    Args:
        checkpoint: folder or hub id.
        pruner: of the images; None serves without one.
        conv_mode: conversation template.
        pruning: further entries of ``visual_pruner``.
        engine: keywords of ``vllm.LLM``.

    Raises:
        ImportError: vLLM is not installed.
        ValueError, FileNotFoundError: vLLM cannot serve the checkpoint so.
    """
    from vllm import LLM

    said = (
        None
        if pruner is None
        else {"pruner": name_of(pruner), **PruningOptions(pruner).describe()["options"], **pruning}
    )
    overrides = {} if said is None else {ENTRY: said}
    llm = LLM(checkpoint, hf_overrides=overrides, mm_processor_kwargs=PIXELS, **engine)
    return EngineModel(get_model_name_from_path(checkpoint), llm, conv_mode)


def check_served(checkpoint: str, allow_crop: bool) -> None:
    """Look at a checkpoint before vLLM is started with it.

    Raises:
        ValueError: it is in LLaVA's format, is no LLaVA, or its processor crops where LLaVA pads.
    """
    raw = read_config(checkpoint_folder(checkpoint))
    if "mm_vision_tower" in raw:
        raise ValueError(
            f"{checkpoint} is in LLaVA's format, vLLM reads Transformers'. Convert it: python "
            f"scripts/convert_llava_to_hf.py --model-path {checkpoint} --output-path {checkpoint}-hf"
        )
    if raw.get("model_type") not in ARCHITECTURES:
        raise ValueError(f"{checkpoint} has model_type {raw.get('model_type')!r}; valid are {', '.join(ARCHITECTURES)}")
    with naming(checkpoint):
        config, processor = AutoConfig.from_pretrained(checkpoint), AutoImageProcessor.from_pretrained(checkpoint)
    crops = getattr(processor, "do_center_crop", False) and not getattr(processor, "do_pad", False)
    if crops and not isinstance(config, LlavaNextConfig) and not allow_crop:
        raise ValueError(
            f"the image processor of {checkpoint} crops pictures to a square where LLaVA pads them: convert LLaVA's "
            "own checkpoint, or take other pictures than LLaVA's with --allow-crop"
        )
