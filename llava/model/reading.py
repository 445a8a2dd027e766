"""The way of a batch of images through a model: planned, encoded, chosen from, recorded."""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llava.model.decoding import Decoder
from llava.model.encoding import ImageBatch, ImagePlan, encode, plan_images
from llava.model.late_selection import LateSelection
from llava.model.layout import borders_of, layouts_of, sizes_of_squares
from llava.model.multimodal_encoder.memory import Memory
from llava.model.prompt_pass import PromptPass
from llava.model.replay import Recent, Replays
from llava.model.splice import Span, VisualBatch, images_of_rows, spans_of, texts_of_images
from llava.pruners import Pruner
from llava.pruners.cues import CLIP_TEXT_CUES, OPTIONAL_CUES, QUESTION_CUES
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.parts import judges_newlines
from llava.selecting.record import PruneRecord
from llava.selecting.relevance import call
from llava.selecting.sensitivity import STEP, directions_of, in_float32, sensitivity
from llava.selecting.words import embed_words, word_ids, words

logger = logging.getLogger(__name__)

EmbedTexts = Callable[[], dict[str, Tensor]]

PLANS = 64  # that a model remembers, of batches of the same sizes
WORDS = 8  # of a question, or a multiple of that, are embedded
LARGEST_CAPTURED = 32  # tiles; with more of them, launches are not what takes time


class ImageReading:
    """The part of ``ImageSide`` that turns images into what the language model reads of them."""

    if TYPE_CHECKING:  # of the model that this is a part of
        config: Any
        stopwatch: Any
        text_chunking: Any

        def get_model(self) -> Any: ...
        def get_vision_tower(self) -> Any: ...
        def parameters(self) -> Iterator[nn.Parameter]: ...
        def _ensure_text_tower(self, text_chunking: str) -> None: ...

    erank_refs: Mapping[int, float] = {}
    _missing_text_reported = False
    _plans: Recent[ImagePlan]
    _replays: Replays | None = None
    _decoder: Decoder | None = None
    _prompt_pass: PromptPass | None = None
    memory: Memory | None = None
    word_tokenizer: Any = None
    """The language model's, for pruners that read the words of a question; ``load_pretrained_model`` sets it."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the projected features of ``images`` (B, 3, H, W): (B, N, D), nothing pruned."""
        return self._project(self.get_vision_tower()(images))

    def stage(self, name: str) -> AbstractContextManager[None]:
        """What a stage of ``llava.model.stages.STAGES`` runs under."""
        stopwatch = self.stopwatch
        return nullcontext() if stopwatch is None else stopwatch.stage(name)

    def _project(self, features: Tensor) -> Tensor:
        with self.stage("projector"):
            return self._projected(features)

    def _projected(self, features: Tensor) -> Tensor:
        projector = self.get_model().mm_projector
        dtype = next((parameter.dtype for parameter in projector.parameters()), features.dtype)

        def project(features: Tensor) -> Tensor:
            return projector(features if not features.is_floating_point() else features.to(dtype))

        return self._derived("embeds", features, project)

    def _derived(self, what: Hashable, features: Tensor, derive: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``derive`` makes of features (B, N, C); of those that are remembered it is made once."""
        return derive(features) if self.memory is None else self.memory.derived(what, features, derive)

    def plain_projector(self) -> nn.Module:
        """The projector as a module of PyTorch's own operations, through which derivatives are taken."""
        return self.get_model().mm_projector

    def _measure(self, plan: ImagePlan) -> Callable[[Tensor], dict[str, Tensor]]:
        """What tells how sensitive the projector is to features (B, N, C), where a pruner reads that; else nothing."""
        directions = plan.directions
        if directions is None:
            return lambda features: {}
        projector = in_float32(self.plain_projector())
        place = next((weight.device for weight in projector.parameters()), None)
        asked = plan.options.chooser.asks("sensitivity")

        def measured(features: Tensor) -> Tensor:
            features = features if place is None else features.to(place)
            return sensitivity(lambda rows: projector(rows), features, directions, asked.get("h", STEP))

        what = ("sensitivity", *sorted(asked.items()))
        return lambda features: {"sensitivity": self._derived(what, features, measured)}

    def _report_missing_text(self, pruner: Pruner) -> None:
        """Warn once of a pruner that does without a question; raise ValueError for one that has nothing else."""
        name = type(pruner).__name__
        if pruner.needs & QUESTION_CUES - OPTIONAL_CUES:
            raise ValueError(f"{name} chooses by the question: `texts` must have one for every image")
        if not self._missing_text_reported:
            logger.warning("%s got no `texts`: pruning without relevance to the question", name)
            self._missing_text_reported = True

    def plan_prompts(
        self, prompts: list[Tensor], images, image_sizes, texts, options: PruningOptions
    ) -> tuple[ImageBatch | None, list[list[Span]]]:
        """Plan how the images are read that prompts (L,) show, None where they show none; and where each will lie."""
        shown = images_of_rows(prompts, len(images))
        texts = texts_of_images(texts, shown, len(images))
        used = [image for indices in shown for image in indices]  # without LLaVA's placeholders
        if not used:
            return None, shown
        if len(used) < len(images):
            images = images[used] if isinstance(images, Tensor) else [images[index] for index in used]
            image_sizes = None if image_sizes is None else [image_sizes[index] for index in used]
            texts = [texts[index] for index in used]
        batch = self.plan_batch(images, image_sizes, texts, options)
        spans = spans_of(batch.plan.counts, batch.plan.lengths, whole=batch.plan.choice is None)
        of_image = dict(zip(used, spans, strict=True))
        return batch, [[of_image[image] for image in indices] for indices in shown]

    def plan_batch(self, images, image_sizes, texts: list[str | None], options: PruningOptions) -> ImageBatch:
        """Plan how images are read, as ``prepare_inputs_labels_for_multimodal`` is given them, with a text for each."""
        options = options.completed(self.erank_refs)
        listed = not isinstance(images, Tensor) or images.ndim == 5
        stacks = [image.unsqueeze(0) if image.ndim == 3 else image for image in images]
        tiles = [len(stack) for stack in stacks]
        tower = self.get_vision_tower()
        merge_type = getattr(self.config, "mm_patch_merge_type", "flat") if listed else "flat"
        patches = tower.num_patches + (tower.select_feature != "patch")
        asked = [text is not None or not options.needs & QUESTION_CUES for text in texts]
        borders = sizes_of_squares(self.config, options, tiles, image_sizes)
        weights = next(self.get_model().mm_projector.parameters(), None)
        device = None if weights is None or weights.is_meta else weights.device

        def make() -> ImagePlan:
            layouts = layouts_of(tiles, patches, merge_type, image_sizes, self.config, tower.config.image_size)
            given = {} if borders is None else {"padding": borders_of(borders, tower.config)}
            plan = plan_images(options, layouts, asked, given, directions_of(options, tower.hidden_size))
            return plan if device is None else plan.to(device)

        sizes = str(image_sizes if merge_type != "flat" else borders)
        grids = str(getattr(self.config, "image_grid_pinpoints", None))
        plan = self._plans.get((options, *tiles, *asked, patches, merge_type, sizes, grids, device), make)
        of_tiles = [text for text, count in zip(texts, tiles, strict=True) for _ in range(count)]
        return ImageBatch(plan, torch.cat(stacks) if listed else images, of_tiles)

    def read_batch(self, batch: ImageBatch) -> tuple[VisualBatch, LateSelection | None]:
        """Turn images into what the language model reads of them. Fills ``last_prune``, now or when tokens are chosen.

        The second value is what is left to do inside the language model, None if nothing is.
        """
        plan, pruner = batch.plan, batch.plan.options.pruner
        embed_texts = self._text_side(batch.texts, plan.options)
        newline = getattr(self.get_model(), "image_newline", None)
        if not plan.in_one_pass:
            return self._read_in_parts(batch, embed_texts(), newline)
        embeds, positions = self._encode_in_one_pass(plan, batch.pixels, embed_texts, newline)
        kept = None if positions is None else list(positions.split(plan.counts))
        self.last_prune = PruneRecord.of(plan.visuals(), kept, pruner is not None and judges_newlines(pruner))
        return VisualBatch(embeds, positions, plan.counts, plan.lengths), None

    def _encode_in_one_pass(
        self, plan: ImagePlan, pixels: Tensor, embed_texts: EmbedTexts, newline: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """``encode``, replayed where it may be: without gradients, as one stage."""
        tower = self.get_vision_tower()
        if self._replays is None or torch.is_grad_enabled() or len(pixels) > LARGEST_CAPTURED:
            return encode(plan, tower, self._projected, pixels, embed_texts, newline, self.stage, self._measure(plan))

        def read(images: Tensor, **embedded: Tensor) -> tuple[Tensor, Tensor | None]:
            return encode(plan, tower, self._projected, images, embedded, newline, measure=self._measure(plan))

        with self.stage("vision"):
            pixels = pixels.to(tower.device, non_blocking=True)
            return self._replays((plan, *self._weights()), read, {"images": pixels, **embed_texts()})

    def _weights(self) -> list[int]:
        """Where weights lie; a graph that was captured with others is of no use."""
        tower, projector = self.get_vision_tower(), self.get_model().mm_projector
        return [each.data_ptr() for part in (tower, projector) for each in islice(part.parameters(), 1)]

    @property
    def cuda_graphs(self) -> bool:
        """Whether image side, prefill and decoding steps are captured, when they are called again, and replayed.

        Set to True, ValueError is raised for a model that is not on one CUDA device; set to False, graphs go, and with
        them the memory that they hold.
        """
        return self._replays is not None

    @cuda_graphs.setter
    def cuda_graphs(self, on: bool) -> None:
        devices = {weight.device for weight in self.parameters()}
        if on and (len(devices) != 1 or next(iter(devices)).type != "cuda"):
            names = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"cuda_graphs needs a model that is on one CUDA device; this one is on {names}")
        self._replays, self._decoder, self._prompt_pass = (
            (Replays(), Decoder(), PromptPass()) if on else (None, None, None)
        )

    def _text_side(self, texts: list[str | None], options: PruningOptions) -> EmbedTexts:
        """What embeds the questions of tiles, once it is called."""
        if not options.needs & QUESTION_CUES:
            return dict
        if None in texts:
            self._report_missing_text(options.chooser)
        if "text_tokens" in options.needs:
            self._check_words()
        if options.needs & CLIP_TEXT_CUES:
            self._ensure_text_tower(self.text_chunking)
            self.get_vision_tower().relevance.run = self._replays or call
        return partial(self._embed_texts, options.needs, texts)

    def _check_words(self) -> None:
        """Raise ValueError where nobody said how the language model reads words."""
        if self.word_tokenizer is None:
            raise ValueError(
                "this pruner reads the words of the question (text_tokens), and the model does not know its tokenizer: "
                "load it by load_pretrained_model, or set model.word_tokenizer = tokenizer"
            )

    def _embed_texts(self, needs: frozenset[str], texts: list[str | None]) -> dict[str, Tensor]:
        with self.stage("vision"):
            embedded = self.get_vision_tower().embed_texts(needs, texts)
            if "text_tokens" in needs and any(text is not None for text in texts):
                embedded["text_tokens"] = self._embed_words(texts)
            return embedded

    def _embed_words(self, texts: list[str | None]) -> Tensor:
        """The input embeddings of the words of each question, (B, M, D); few forms of M, so that calls are replayed."""
        known = {text: [] if text is None else word_ids(self.word_tokenizer, words(text)) for text in texts}
        table = self.get_model().embed_tokens
        weight = next(table.parameters(), None) if isinstance(table, nn.Module) else None
        device = self.get_vision_tower().device if weight is None else weight.device
        embedded = embed_words(list(known.values()), table, device, WORDS)
        places = {text: place for place, text in enumerate(known)}
        return embedded[torch.tensor([places[text] for text in texts]).to(device, non_blocking=True)]

    def _read_in_parts(
        self, batch: ImageBatch, embedded: dict[str, Tensor], newline: Tensor | None
    ) -> tuple[VisualBatch, LateSelection | None]:
        """As ``read_batch``, for pruners that merge, which do so before the projector, for budgets that follow the
        picture, and for a decoder layer.
        """
        plan, options = batch.plan, batch.plan.options
        cues = self._encode(plan, batch.pixels, embedded)
        visuals = plan.visuals(cues, newline)
        if options.prune_layer:
            late = LateSelection(
                options, visuals, partial(setattr, self, "last_prune"), partial(self.stage, "selection")
            )
            self.last_prune = None
            return VisualBatch(
                plan.gather(cues["embeds"], [None] * len(visuals), newline), None, plan.counts, plan.lengths
            ), late
        merges = options.chooser.merges
        with self.stage("selection"):
            tokens = [layout.take(cues["features"]) for layout in plan.layouts] if merges else None
            choice = choose(options, visuals, tokens)
            if merges:
                merged = cues["features"].clone()
                for layout, tokens in zip(plan.layouts, choice.merged, strict=True):
                    layout.put(merged, tokens)
        self.last_prune = PruneRecord.of(visuals, choice.kept, judges_newlines(options.chooser), choice.budgets)
        embeds, positions = self._project(merged) if merges else cues["embeds"], torch.cat(choice.kept)
        counts = [len(kept) for kept in choice.kept]
        return VisualBatch(plan.gather(embeds, choice.kept, newline), positions, counts, plan.lengths), None

    def _encode(self, plan: ImagePlan, images: Tensor, embedded: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode tiles (B, 3, H, W), with the cues that the pruner and its budget ask for.

        There are no ``embeds`` where tokens are merged before the projector, unless these read them.
        """
        options = plan.options
        with self.stage("vision"):
            features, cues = self.get_vision_tower().with_cues(images, options.needs, embedded, plan.object_layer)
        cues |= {"features": features, **plan.given, **self._measure(plan)(features)}
        if options.chooser.merges and "embeds" not in options.needs:
            return cues
        embeds = self._project(features)  # on another device than the tower when the model is spread over several
        return {"embeds": embeds, **{name: cue.to(embeds.device) for name, cue in cues.items()}}
