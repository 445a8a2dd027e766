"""Prune the visual tokens of Transformers' own vision-language models."""

from typing import Any

from torch import nn
from transformers.utils.versions import require_version

from llava import compat
from llava.pruners import Pruner
from llava.pruning.families import FAMILIES, Family, family_of
from llava.pruning.prompts import Texts
from llava.pruning.session import Pruning
from llava.selecting.options import HOSTED, PruningOptions

__all__ = ["FAMILIES", "Pruning", "check_transformers", "hook", "prune", "unprune"]


def prune(
    model: nn.Module,
    pruner: str | Pruner,
    *,
    visual_token_num: int | None = None,
    keep_ratio: float | None = None,
    attention: str | None = None,
    relevance: str = "llm_text",
    text_tower: str | None = None,
    texts: Texts = None,
    tokenizer: Any = None,
    text_chunking: str = "release",
    positions: str | None = None,
    budget_scope: str | None = None,
    prune_layer: int = 0,
    budget: str = "fixed",
    erank_ref: float | None = None,
    mass: float = 0.9,
    budget_split: str = "even",
    **options: Any,
) -> Pruning:
    """Prune what a Transformers vision-language model reads of its images and videos, from now on.

    ``with prune(model, "cdpruner", visual_token_num=64) as record:`` ends with the block; otherwise ``unprune(model)``
    ends it. ``generate`` and ``forward`` are called as before and return what they did: ids with the whole prompt in
    front. This instance alone is hooked; its class is not touched. ``generate(..., pruning=...)`` prunes one call in
    its own way, with ``PruningOptions``, or not at all, with None.

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
        texts: the question of each prompt, or one for all, for "clip_text" and for pruners that read words; None for
            a prompt without one; an attribute of what is returned, too.
        tokenizer: the model's own, for pruners that read the words of the question.
        text_chunking: how questions over CLIP's context length are cut, "release" or "bos_eos".
        positions: "compact" numbers what is left without gaps; "original" leaves every token its position. None is
            the family's own: original for Qwen, whose positions are places in the image, compact for the others.
        budget_scope: "tile" or "image", what one selection covers; None leaves it to the pruner.
        prune_layer: K lets the first K layers of the language model read all tokens, and the others the kept ones,
            which leaves positions as they are; pruners then read the states at layer K as embeddings.
        budget: "fixed" keeps the same of every tile or frame; "spectral" and "mass" keep more of an image that shows
            more, ``visual_token_num`` being the wanted mean.
        erank_ref: for "spectral", the effective rank of an image that keeps that mean; None is what was measured for
            the checkpoint and lies in its folder.
        mass: for "mass", the share of attention and relevance that is kept.
        budget_split: "even", or "importance": the tiles of an image share its budget by what they say to the question.
        options: the pruner's own.

    Returns:
        The record of the last call, with ``keep``, ``visual_tokens`` and ``tokens_before``.

    Raises:
        TypeError: for a model of another class, or an option that the pruner does not have.
        ValueError: for a wrong value, a cue that the pruner reads and the model cannot give, which it names, or a model
            that is pruned already.
        ImportError: for a Transformers too old.
    """
    check_transformers()
    if pruner is None or pruner == "none":
        raise ValueError("prune needs a pruner; without one, call the model as it is")
    family_class = _family_to_hook(model)
    family = family_class(model, attention)
    family.check(positions, prune_layer)
    options |= {"visual_token_num": visual_token_num, "keep_ratio": keep_ratio, "text_chunking": text_chunking}
    options |= {"attention": attention, "relevance": relevance, "text_tower": text_tower}
    options |= {"positions": positions, "budget_scope": budget_scope, "prune_layer": prune_layer}
    options |= {"budget": budget, "erank_ref": erank_ref, "mass": mass, "budget_split": budget_split}
    pruning = PruningOptions.of(HOSTED, pruner=pruner, **options)
    family.check_cues(pruning, tokenizer)
    model._pruning = Pruning(model, family, pruning, texts, tokenizer)
    return model._pruning


def hook(model: nn.Module, options: PruningOptions, tokenizer: Any = None) -> Pruning:
    """As ``prune``, by options that are made already; without a pruner, calls alone are pruned that bring options.

    Raises:
        TypeError, ValueError, ImportError: as ``prune``.
    """
    check_transformers()
    family = _family_to_hook(model)(model, options.attention)
    family.check(options.positions, options.prune_layer)
    family.check_cues(options, tokenizer)
    model._pruning = Pruning(model, family, options, tokenizer=tokenizer)
    return model._pruning


def _family_to_hook(model: nn.Module) -> type[Family]:
    """The family of a model that has no hooks yet; raises as ``prune``."""
    family = family_of(model)
    if getattr(model, "_pruning", None) is not None:
        raise ValueError("this model is pruned already: call unprune(model) first")
    return family


def check_transformers() -> None:
    """Raise ImportError, which names the version needed, where Transformers is too old for ``prune``."""
    require_version(f"transformers>={compat.PRUNES_FROM}", "llava.pruning prunes the models of these versions.")
    compat.warn_if_newer()


def unprune(model: nn.Module) -> None:
    """Leave a model as it was before ``prune``; nothing happens to one that is not pruned."""
    if getattr(model, "_pruning", None) is not None:
        model._pruning.remove()
