"""What a family of Transformers' vision-language models must tell for its tokens to be pruned."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llava import compat
from llava.pruners.checks import is_count
from llava.pruning.families.video import frame_visuals
from llava.pruning.shorten import Shortened
from llava.selecting.attention import (
    LAST_BLOCK_CUES,
    SELECTED_BLOCK_CUES,
    cls_row,
    cues_of,
    queries_and_keys,
    received,
)
from llava.selecting.options import ATTENTION, check_choice
from llava.selecting.parts import Visual
from llava.selecting.per_thread import PerThread


@dataclass
class Tape:
    """What is noted while a thread encodes."""

    reader: nn.Module  # whose input are the features
    wanted: dict[int, set[str]]  # names of cues by the identity of the block that they are from
    cues: dict[str, Tensor] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)  # the wanted blocks that ran


class Family:
    """One family: where its features and cues come from, and in which order it reads them.

    Subclasses name their modalities and turn what the encoder computed into ``Visual``s, unless images are single tiles
    and videos their frames; most override ``tower`` and ``visuals`` alone.

    Args:
        model: a ``...ForConditionalGeneration``.
        attention: "cls" or "received", what stands for the [CLS] attention; None takes [CLS] where there is one.

    Raises:
        TypeError: for an encoder that is built otherwise.
        ValueError: for an ``attention`` that the encoder does not have.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    positions: ClassVar[tuple[str, ...]] = ("compact", "original")  # the first is the default
    newline_after_video: ClassVar[bool] = False

    def __init__(self, model: nn.Module, attention: str | None = None):
        self.base = model.model
        self.config = model.config
        self._tape: PerThread[Tape | None] = PerThread()
        self.unheard: PerThread[bool | None] = PerThread()  # whether images were encoded and not recorded
        self._handles: list[Any] = []
        self._check_encoders(model)
        if attention is None:
            attention = "cls" if self.has_cls() else "received"
        if attention not in ATTENTION or (attention == "cls" and not self.has_cls()):
            valid = ", ".join(ATTENTION) if self.has_cls() else "received: its encoder has no [CLS] token"
            raise ValueError(f"attention {attention!r} is not possible for {type(model).__name__}; valid: {valid}")
        self.attention = attention

    def _check_encoders(self, model: nn.Module) -> None:
        for modality in self.modalities:
            try:
                self.blocks(modality)
            except AttributeError as error:
                encoder = type(self.tower(modality)).__name__
                raise TypeError(f"cannot prune a {type(model).__name__} whose encoder is a {encoder}") from error

    def token_id(self, modality: str) -> int:
        """The placeholder that stands in a prompt for each visual token of that modality."""
        return getattr(self.config, f"{modality}_token_id")

    def visual_columns(self, ids: Tensor, modalities: Iterable[str]) -> Tensor:
        """Which ids are placeholders of these modalities, (B, L) bool."""
        return torch.isin(ids, torch.tensor([self.token_id(name) for name in modalities], device=ids.device))

    def tower(self, modality: str) -> nn.Module:
        """The vision encoder."""
        return self.base.vision_tower

    def has_cls(self) -> bool:
        """Whether the encoder has a [CLS] token."""
        embeddings = getattr(self.tower("image"), "embeddings", None)
        return any(hasattr(embeddings, name) for name in ("class_embedding", "cls_token"))

    def attention_block(self, modality: str, layer: int | list[int] | None = None) -> nn.Module:
        """The block whose attention is the cue: for [CLS] that of the selected features, else the last.

        ``layer`` is the call's own ``vision_feature_layer``; None is the config's.
        """
        if self.attention == "received":
            return self.last_block(modality)
        blocks = self.blocks(modality)
        layer = self.config.vision_feature_layer if layer is None else layer
        layer = layer if isinstance(layer, int) else layer[-1]
        return blocks[layer - 1 if layer > 0 else len(blocks) + layer]

    def last_block(self, modality: str) -> nn.Module:
        """The last block that lets all tokens attend to each other."""
        return self.blocks(modality)[-1]

    def blocks(self, modality: str) -> nn.ModuleList:
        """The encoder's blocks."""
        return self.tower(modality).encoder.layers

    def queries_and_keys(self, block: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, float]:
        """Recompute a block's queries and keys, both (B, N, H, d), from its input; and the scale of their product."""
        return queries_and_keys(block, hidden_states)

    @contextmanager
    def recording(
        self, modality: str, needs: frozenset[str], layer: int | list[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Note the encoder's features, and the cues of its blocks that are needed, while this thread encodes.

        ``layer`` is the call's own ``vision_feature_layer``. RuntimeError for an encoder whose blocks are not heard.
        """
        if not self._handles:
            self.listen()
        wanted: dict[int, set[str]] = {}
        for names, block in (
            (SELECTED_BLOCK_CUES & needs, self.attention_block(modality, layer)),
            (LAST_BLOCK_CUES & needs, self.last_block(modality)),
        ):
            wanted[id(block)] = wanted.get(id(block), set()) | names
        self._tape.value = tape = Tape(self.reader(modality), wanted)
        try:
            yield tape.cues
        finally:
            self._tape.value = None
        if not tape.heard >= {block for block, names in wanted.items() if names}:
            raise compat.not_pruned(f"{type(self.tower(modality)).__name__} did not call its blocks as modules")

    def listen(self) -> None:
        """Hook what ``recording`` notes into the encoders, once for all threads; nothing is noted outside of it."""
        heard: set[int] = set()
        for modality in self.modalities:
            blocks = [(block, self._note_cues) for block in self.blocks(modality)]
            for module, note in ((self.reader(modality), self._note_features), *blocks):
                if id(module) not in heard:  # images and videos may have one encoder
                    heard.add(id(module))
                    self._handles.append(module.register_forward_pre_hook(note, with_kwargs=True))

    def forget(self) -> None:
        """Take off what ``listen`` hooked in."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note_features(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tape = self._tape.value
        if tape is None:
            self.unheard.value = True
        elif module is tape.reader:
            tape.cues["features"] = (args[0] if args else next(iter(kwargs.values()))).detach()

    def _note_cues(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tape = self._tape.value
        if tape is not None and tape.wanted.get(id(block)):
            tape.heard.add(id(block))
            with torch.no_grad():
                tape.cues.update(self.block_cues(block, tape.wanted[id(block)], *args, **kwargs))

    def block_cues(
        self, block: nn.Module, names: set[str], hidden_states: Tensor, *_: Any, **__: Any
    ) -> dict[str, Tensor]:
        """The cues of a block from its input, (B, N) or (B, N, C), [CLS] among the N if there is one."""
        return self.cues_of(names, *self.queries_and_keys(block, hidden_states))

    def cues_of(self, names: set[str], query: Tensor, key: Tensor, scale: float) -> dict[str, Tensor]:
        """The cues in ``names`` from a block's queries and keys, (B, N, H, d) both; "cls_attention" may be received."""
        return cues_of(names, query, key, scale, cls_row if self.attention == "cls" else received)

    def projector(self) -> nn.Module:
        """The module that is called with the selected features."""
        return self.base.multi_modal_projector

    def reader(self, modality: str) -> nn.Module:
        """The module whose input is noted as the features: the projector, unless another is called before it."""
        return self.projector()

    def cues(self, modality: str, tape: dict[str, Tensor], clip: bool) -> dict[str, Tensor]:
        """What is known of the encoder's tokens, (B, N) or (B, N, C), by the names that ``Visual`` has for it."""
        tokens = tape["features"].shape[1]
        cues = {name: cue if name == "features" else self.of_tokens(cue, tokens) for name, cue in tape.items()}
        if clip:
            cues["clip_patches"] = self.clip_layer_norm(modality)(tape["features"])  # as CLIP's text tower reads them
        return cues

    def clip_layer_norm(self, modality: str = "image") -> nn.LayerNorm:
        """CLIP's last layer norm; ValueError where the encoder is not CLIP, or the features are of several layers."""
        encoder, layer = self.config.vision_config.model_type, getattr(self.config, "vision_feature_layer", None)
        if encoder != "clip_vision_model" or not isinstance(layer, int):
            raise ValueError(
                'relevance="clip_text" needs a CLIP encoder and one vision_feature_layer; this '
                f'{type(self.base).__name__} has a {encoder}, layer {layer}: use relevance="llm_text"'
            )
        return self.tower(modality).post_layernorm

    def visuals(self, modality: str, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool) -> list[Visual]:
        """Return the images or videos of one call of the encoder, in the order of their placeholders.

        Args:
            modality: "image" or "video".
            arguments: what ``get_image_features`` or ``get_video_features`` was called with, by name.
            tape: "features" (B, N, C), the projector's input; and those cues of blocks that were needed.
            clip: whether ``clip_patches`` are needed.
        """
        frames = arguments["pixel_values_videos"].shape[1] if modality == "video" else 1
        return frame_visuals(self.cues(modality, tape, clip), frames, modality == "video" and self.newline_after_video)

    def grouped(self, visuals: list[Visual], rows: Tensor, columns: Tensor) -> list[Visual]:
        """Return the images of a batch from what was encoded, where that is other than whole images.

        ``rows`` and ``columns`` (P,) are the prompt of each of their placeholders, and its place in the prompt.
        """
        return visuals

    def first_prune_layer(self) -> int:
        """The first layer of the language model, from 1 on, that tokens can be dropped at."""
        return 1

    def check(self, positions: str | None, layer: int) -> None:
        """Raise ValueError for positions or a ``prune_layer`` that this model does not have."""
        check_choice("positions", positions, (None, *(("original",) if layer else self.positions)))
        layers, first = self.base.language_model.config.num_hidden_layers, self.first_prune_layer()
        if not (is_count(layer) and (layer == 0 or first <= layer < layers)):
            raise ValueError(f"prune_layer must be 0 or from {first} to {layers - 1} for this model, not {layer!r}")

    def shorten(self, kwargs: dict[str, Any], keep: Tensor, short: Shortened) -> dict[str, Any]:
        """Return the language model's other arguments that shorten with the prompt."""
        return {}

    def of_tokens(self, cue: Tensor, tokens: int) -> Tensor:
        """A block's cue (B, 1 + N, ...) of the N visual ``tokens``: [CLS] is dropped where it is none of them."""
        return cue[:, cue.shape[1] - tokens :]
