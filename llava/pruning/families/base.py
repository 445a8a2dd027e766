"""What a family of Transformers' vision-language models must tell for its tokens to be pruned."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llava.pruners.checks import is_count
from llava.pruning.families.listening import Asks, Listening
from llava.pruning.families.video import frame_visuals
from llava.pruning.shorten import Shortened
from llava.selecting.attention import OBJECT_LAYER
from llava.selecting.options import ATTENTION, PruningOptions, check_choice
from llava.selecting.parts import Visual
from llava.selecting.sensitivity import DIRECTIONS, SEED, STEP, random_directions, sensitivity
from llava.selecting.words import words

JOINT_CUES = frozenset({"joint_embeds", "text_sequence"})
OF_READER = frozenset({"features", "sensitivity"})
"""Cues of as many tokens as the reader's input has."""


class Family(Listening):
    """One family: where its features and cues come from, and in which order it reads them.

    Subclasses name their modalities and make a ``Visual`` of what the encoder computed of each, unless images are
    single tiles and videos their frames; most override ``tower`` and ``visuals`` alone.

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
        self.base: Any = model.model  # whose parts each family names
        self.config: Any = model.config
        super().__init__()
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

    def tower(self, modality: str) -> Any:
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
        return self.selected_block(modality, layer)

    def selected_block(self, modality: str, layer: int | list[int] | None = None) -> nn.Module:
        """The block that the selected features come out of; of layers that the config does not name, the last."""
        layer = getattr(self.config, "vision_feature_layer", None) if layer is None else layer
        if layer is None:
            return self.last_block(modality)
        blocks, layer = self.blocks(modality), layer if isinstance(layer, int) else layer[-1]
        return blocks[layer - 1 if layer > 0 else len(blocks) + layer]

    def object_block(self, modality: str, asked: Mapping[str, Any]) -> nn.Module:
        """The block of ``object_attention``; ValueError where there is none, or it does not see the whole image."""
        layer, valid = asked.get("layer", OBJECT_LAYER), self.whole_blocks(modality)
        if layer not in valid:
            named = f"1 to {len(valid)}" if len(valid) == len(self.blocks(modality)) else ", ".join(map(str, valid))
            raise ValueError(
                f"object_attention of block {layer}: the blocks of this {type(self.base).__name__}'s encoder whose "
                f"tokens attend to the whole image are {named}; object_layer says which is read"
            )
        return self.blocks(modality)[layer - 1]

    def whole_blocks(self, modality: str) -> Sequence[int]:
        """The blocks in which every token attends to its whole image or frame, counted from 1."""
        return range(1, len(self.blocks(modality)) + 1)

    def last_block(self, modality: str) -> nn.Module:
        """The last block that lets all tokens attend to each other."""
        return self.blocks(modality)[-1]

    def blocks(self, modality: str) -> nn.ModuleList:
        """The encoder's blocks."""
        return self.tower(modality).encoder.layers

    def projector(self) -> nn.Module:
        """The module that is called with the selected features."""
        return self.base.multi_modal_projector

    def reader(self, modality: str) -> nn.Module:
        """The module whose input is noted as the features: the projector, unless another is called before it."""
        return self.projector()

    def cues(self, modality: str, tape: dict[str, Tensor], clip: bool) -> dict[str, Tensor]:
        """What is known of the encoder's tokens, (B, N) or (B, N, C), by the names that ``Visual`` has for it."""
        tokens = tape["features"].shape[1]
        cues = {name: cue if name in OF_READER else self.of_tokens(cue, tokens) for name, cue in tape.items()}
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

    def cues_of_features(self, features: Tensor, needs: frozenset[str], asks: Asks) -> dict[str, Tensor]:
        if "sensitivity" not in needs:
            return {}
        project, rows = self.sensed(features)
        place = next((weight.device for weight in project.parameters()), rows.device)
        asked = asks("sensitivity")
        directions = random_directions(asked.get("directions", DIRECTIONS), rows.shape[-1], asked.get("seed", SEED))
        return {"sensitivity": sensitivity(project, rows.to(place), directions, asked.get("h", STEP))}

    def sensed(self, features: Tensor) -> tuple[nn.Module, Tensor]:
        """What makes each token, and what of, (B, N, C): the projector and the selected features."""
        return self.projector(), features

    def check_cues(self, options: PruningOptions, tokenizer: Any) -> None:
        """Raise ValueError for a cue that the pruner reads and that this model, called so, cannot give.

        ``tokenizer`` is what words are read with, None where nobody said.
        """
        needs = frozenset() if options.pruner is None else options.pruner.needs
        if "object_attention" in needs:
            for modality in self.modalities:
                self.object_block(modality, options.pruner.asks("object_attention"))
        if (joint := needs & JOINT_CUES) and options.relevance != "clip_text":
            raise ValueError(
                f'{" and ".join(sorted(joint))} are cues of CLIP\'s joint space: they need relevance="clip_text" and '
                "text_tower, the folder or hub id of the CLIP that the encoder came from"
            )
        if "text_tokens" in needs and tokenizer is None:
            raise ValueError(
                "text_tokens are the words of the question: give prune the model's tokenizer, as "
                "prune(model, ..., texts=..., tokenizer=processor.tokenizer)"
            )

    def words(self, question: str) -> list[str]:
        """The words of a question that ``text_tokens`` are of."""
        return words(question)

    def shorten(self, kwargs: dict[str, Any], keep: Tensor, short: Shortened) -> dict[str, Any]:
        """Return the language model's other arguments that shorten with the prompt."""
        return {}

    def of_tokens(self, cue: Tensor, tokens: int) -> Tensor:
        """A block's cue (B, 1 + N, ...) of the N visual ``tokens``: [CLS] is dropped where it is none of them."""
        return cue[:, cue.shape[1] - tokens :]
