"""Prune the visual tokens of Transformers' own vision-language models."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import CLIPModel, CLIPTokenizer
from transformers.utils.versions import require_version

from llava import compat
from llava.pruners import Pruner, resolve_pruner
from llava.pruners.base import CLIP_TEXT_CUES
from llava.pruners.checks import is_count
from llava.pruning.calls import Settings
from llava.pruning.families import FAMILIES, Family, family_of
from llava.pruning.session import Pruning
from llava.selecting.options import PruningOptions, check_choice
from llava.selecting.relevance import ClipRelevance

__all__ = ["FAMILIES", "Pruning", "check_transformers", "prune", "unprune"]


def prune(
    model: nn.Module,
    pruner: str | Pruner,
    *,
    visual_token_num: int | None = None,
    keep_ratio: float | None = None,
    attention: str | None = None,
    relevance: str = "llm_text",
    text_tower: str | None = None,
    texts: str | Sequence[str] | None = None,
    text_chunking: str = "release",
    positions: str | None = None,
    budget_scope: str | None = None,
    prune_layer: int = 0,
    **options: Any,
) -> Pruning:
    """Prune what a Transformers vision-language model reads of its images and videos, from now on.

    ``with prune(model, "cdpruner", visual_token_num=64) as record:`` ends with the block; otherwise ``unprune(model)``
    ends it. ``generate`` and ``forward`` are called as before and return what they did: ids with the whole prompt in
    front. This instance alone is hooked; its class is not touched.

    Args:
        model: of one of the classes in ``FAMILIES``.
        pruner: a name in ``llava.pruners.PRUNERS``, or a pruner.
        visual_token_num: tokens kept per tile or frame; this or ``keep_ratio``.
        keep_ratio: share of the tokens kept.
        attention: what pruners read as attention: "cls", from [CLS] in the block of the selected features; or
            "received", by each token on average in the encoder's last block. None is "cls" where there is a [CLS].
        relevance: what pruners read as relevance: "llm_text", the cosine of a visual token to the mean of the
            prompt's other embeddings; or "clip_text", the negated cosine of a patch to its question in CLIP's space.
        text_tower: hub id or folder of the CLIP that the encoder came from, for "clip_text".
        texts: the question of each prompt, or one for all, for "clip_text"; an attribute of what is returned, too.
        text_chunking: how questions over CLIP's context length are cut, "release" or "bos_eos".
        positions: "compact" numbers what is left without gaps; "original" leaves every token its position. None is
            the family's own: original for Qwen, whose positions are places in the image, compact for the others.
        budget_scope: "tile" or "image", what one selection covers; None leaves it to the pruner.
        prune_layer: K lets the first K layers of the language model read all tokens, and the others the kept ones,
            which leaves positions as they are; pruners then read the states at layer K as embeddings.
        options: the pruner's own.

    Returns:
        The record of the last call: ``keep``, ``visual_tokens``, ``tokens_before``.

    Raises:
        TypeError: for a model of another class, or an option that the pruner does not have.
        ValueError: for a wrong value, or a model that is pruned already.
        ImportError: for a Transformers too old.
    """
    check_transformers()
    if pruner is None or pruner == "none":
        raise ValueError("prune needs a pruner; without one, call the model as it is")
    family_class = family_of(model)
    resolved = resolve_pruner(pruner, visual_token_num, keep_ratio, **options)
    if getattr(model, "_pruning", None) is not None:
        raise ValueError("this model is pruned already: call unprune(model) first")
    family = family_class(model, attention)
    valid_positions = ("original",) if prune_layer else family.positions
    positions = valid_positions[0] if positions is None else positions
    check_choice("positions", positions, valid_positions)
    _check_layer(family, prune_layer)
    PruningOptions(resolved, budget_scope, positions, prune_layer, text_chunking, attention, relevance, text_tower)
    clip = None
    if text_tower is not None and resolved.needs & CLIP_TEXT_CUES:
        clip = _load_clip(family, text_tower, text_chunking)
    settings = Settings(resolved, clip, positions == "compact", budget_scope, prune_layer)
    model._pruning = Pruning(model, family, settings, texts)
    return model._pruning


def check_transformers() -> None:
    """Raise ImportError, which names the version needed, where Transformers is too old for ``prune``."""
    require_version(f"transformers>={compat.PRUNES_FROM}", "llava.pruning prunes the models of these versions.")
    compat.warn_if_newer()


def unprune(model: nn.Module) -> None:
    """Leave a model as it was before ``prune``; nothing happens to one that is not pruned."""
    if getattr(model, "_pruning", None) is not None:
        model._pruning.remove()


def _load_clip(family: Family, text_tower: str, text_chunking: str) -> ClipRelevance:
    """Load the CLIP that the encoder came from.

    Raises:
        ValueError: the encoder came from no such CLIP, or weights are missing, which would be left random.
    """
    width = family.clip_layer_norm().normalized_shape[-1]
    clip, report = CLIPModel.from_pretrained(text_tower, dtype="float32", output_loading_info=True)
    if clip.config.vision_config.hidden_size != width:
        raise ValueError(
            f"text_tower {text_tower}: patches of this CLIP have {clip.config.vision_config.hidden_size} features, "
            f"those of the model's encoder {width}; give the CLIP that the encoder came from"
        )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"text_tower {text_tower} lacks {len(missing)} weights, {missing[0]} among them")
    return ClipRelevance(clip, CLIPTokenizer.from_pretrained(text_tower), text_chunking)


def _check_layer(family: Family, layer: int) -> None:
    layers = family.base.language_model.config.num_hidden_layers
    first = family.first_prune_layer()
    if not (is_count(layer) and (layer == 0 or first <= layer < layers)):
        raise ValueError(f"prune_layer must be 0 or from {first} to {layers - 1} for this model, not {layer!r}")
