"""An engine of vLLM beside this project's own ``generate``: the same questions, and what each read and answered."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava.asking.llava import Item, Preparer
from llava.asking.prompts import first_turn, lmms_query
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.builder import load_pretrained_model

MODE = "vicuna_v1"
PIXELS = {"backend": "pil"}  # what Transformers takes where torchvision is installed resizes a little otherwise


@dataclass(frozen=True)
class Asked:
    """A turn of the user, ``<image>`` where its pictures stand."""

    text: str
    images: Sequence[Image.Image] = ()


@dataclass
class Said:
    """What a model read and answered; of every picture, the kept positions and embeddings."""

    prompt: list[int]
    answer: list[int]
    kept: list[list[int]] = field(default_factory=list)
    embeds: list[Tensor] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    query: str = ""


class Own:
    """A checkpoint in LLaVA's format, answered by this project."""

    def __init__(self, checkpoint: str | Path, new_tokens: int = 8):
        path = str(checkpoint)
        tokenizer, self.model, processor, _ = load_pretrained_model(path, None, Path(path).name, device="cpu")
        self.preparer = Preparer(tokenizer, processor, self.model.config, MODE)
        self.new_tokens = new_tokens

    @torch.inference_mode()
    def ask(self, asked: Sequence[Asked], **pruning: Any) -> list[Said]:
        """Answer one by one; a prompt has a placeholder for every kept token, as vLLM's has."""
        from llava.selecting.options import NATIVE, PruningOptions

        self.model.pruning = PruningOptions.of(NATIVE, **pruning)
        return [self._said(self.preparer.item(each.text, each.images, lmms_query(each.text), {})) for each in asked]

    def _said(self, item: Item) -> Said:
        pixels, sizes, ids = list(item.pixels), list(item.sizes), item.ids.unsqueeze(0)
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            images=pixels or None,
            image_sizes=sizes,
            texts=[item.query],
            do_sample=False,
            max_new_tokens=self.new_tokens,
        )
        known = known_of(self.model, pixels, sizes, item.query) if pixels else []
        placeholder = len(self.preparer.tokenizer)  # the first token that converting adds
        shown = iter([placeholder] * len(embeds) for _, embeds in known)
        prompt = [each for id in item.ids.tolist() for each in (next(shown) if id == IMAGE_TOKEN_INDEX else [id])]
        kept, embeds = [kept for kept, _ in known], [embeds for _, embeds in known]
        return Said(prompt, output[0].tolist(), kept, embeds, pixels, item.query)


def known_of(images: Any, pixels: Sequence[Tensor], sizes: Any, query: str) -> list[tuple[list[int], Tensor]]:
    """Kept positions and embeddings of each picture of a prompt."""
    batch = images.plan_batch(pixels, sizes, [query] * len(pixels), images.pruning)
    return split(images.read_batch(batch)[0])


def split(read: Any) -> list[tuple[list[int], Tensor]]:
    """What was read of a batch, picture by picture."""
    everything = [torch.arange(count) for count in read.counts]
    positions = everything if read.positions is None else read.positions.split(read.counts)
    return [(kept.tolist(), embeds) for kept, embeds in zip(positions, read.embeds.split(read.counts), strict=True)]


class Engine:
    """vLLM in this process; notes what its image side hands on."""

    def __init__(self, llm: Any):
        self.llm = llm
        self.model = llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
        self.encoded: list[tuple[str, Tensor, list[int], Tensor]] = []
        if hasattr(self.model, "images"):
            self._own = self.model.images.read_batch
            self.model.images.read_batch = self._noted

    def _noted(self, batch: Any) -> Any:
        found = self._own(batch)
        tiles = [layout.tiles for layout in batch.plan.layouts]
        texts = [text[0] for text in torch.arange(len(batch.texts)).split(tiles)]
        for pixels, text, (kept, embeds) in zip(batch.pixels.split(tiles), texts, split(found[0]), strict=True):
            self.encoded.append((batch.texts[text], pixels, kept, embeds.clone()))
        return found

    def ask(self, asked: Sequence[Asked], new_tokens: int = 8, **request: Any) -> list[Said]:
        """Answer all at once, in batches of the engine's own."""
        from vllm import SamplingParams

        prompts = []
        for each in asked:
            shown = {"multi_modal_data": {"image": list(each.images)}} if each.images else {}
            prompts.append({"prompt": first_turn(each.text, MODE), **shown, **request})
        outputs = self.llm.generate(prompts, SamplingParams(temperature=0, max_tokens=new_tokens), use_tqdm=False)
        return [Said(list(output.prompt_token_ids), list(output.outputs[0].token_ids)) for output in outputs]

    def of(self, pixels: Tensor, query: str) -> tuple[list[int], Tensor]:
        """Kept positions and embeddings of a picture that was asked about; no query for a pruner that reads none."""
        found = (
            (kept, embeds)
            for asked, seen, kept, embeds in self.encoded
            if asked == query and torch.equal(seen, pixels.view(-1, *seen.shape[1:]))
        )
        return next(found)


@contextmanager
def engine(checkpoint: str | Path, pruner: dict[str, Any] | None = None, **options: Any) -> Iterator[Engine]:
    """Start an engine in float32 and stop it again."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    overrides = {} if pruner is None else {"visual_pruner": pruner}
    options = {"max_model_len": 512, "mm_processor_kwargs": PIXELS} | options
    llm = LLM(str(checkpoint), dtype="float32", enforce_eager=True, hf_overrides=overrides, **options)
    try:
        yield Engine(llm)
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()


def agree(own: Sequence[Said], served: Sequence[Said], engine: Engine, reads_text: bool = True) -> dict[str, int]:
    """How many questions agree in prompt ids, answer ids, kept positions and embeddings to the last bit."""
    counts = dict.fromkeys(("prompt", "answer", "kept", "embeds"), 0)
    for one, other in zip(own, served, strict=True):
        counts["prompt"] += one.prompt == other.prompt
        counts["answer"] += one.answer == other.answer
        found = [engine.of(pixels, one.query if reads_text else "") for pixels in one.pixels]
        counts["kept"] += [kept for kept, _ in found] == one.kept
        counts["embeds"] += all(
            torch.equal(embeds, expected) for (_, embeds), expected in zip(found, one.embeds, strict=True)
        )
    return counts
