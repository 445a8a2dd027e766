"""What ``visual_pruner`` says, held against the model that it is said of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import CLIPVisionConfig, PretrainedConfig

from llava.convert.configs import BACKBONES, clip_of, llava_settings
from llava.model.encoding import object_layer
from llava.model.multimodal_encoder.builder import resolve_tower
from llava.pruners import name_of, resolve_pruner
from llava.pruners.cues import CLIP_TEXT_CUES, INSIDE_CUES
from llava.selecting.options import NATIVE, PruningOptions, names_of
from llava.vllm import ENTRY

ONE_WAY = {
    "relevance": ("clip_text", "vLLM's encoder does not see the prompt that llm_text compares with"),
    "attention": ("cls", "the encoder is CLIP's"),
    "positions": ("compact", "vLLM numbers tokens without gaps"),
    "prune_layer": (0, "vLLM's language model reads what is left"),
    "budget": ("fixed", "vLLM counts an image's tokens before it is seen"),
    "budget_split": ("even", "vLLM counts a tile's tokens before it is seen"),
}
"""Options that have one value in vLLM, and why."""


@dataclass(frozen=True)
class Served:
    """How a model is pruned.

    Args:
        options: with a pruner.
        settings: LLaVA's config of the model, for its tower and the order of its tokens.
        text_tower: folder or hub id of the CLIP whose text side is read; None where none is.
    """

    options: PruningOptions
    settings: Mapping[str, Any]
    text_tower: str | None


def served(config: PretrainedConfig) -> Served | None:
    """Read and check the ``visual_pruner`` of a config; None where it has none.

    Raises:
        ValueError: an option that is unknown, has a wrong value or does not fit the model; begins with its name.
    """
    given = getattr(config, ENTRY, None)
    if given is None:
        return None
    try:
        if not isinstance(given, Mapping):
            raise ValueError(f'must be like {{"pruner": "cdpruner", "visual_token_num": 64}}, not {given!r}')
        return _served(config, dict(given))
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{ENTRY}: {error}") from error


def _served(config: PretrainedConfig, given: dict[str, Any]) -> Served:
    for name, (value, reason) in ONE_WAY.items():
        if (said := given.pop(name, value)) not in (value, None):
            raise ValueError(f"{name} is {value!r} in vLLM, not {said!r}: {reason}")
    text_tower = given.pop("text_tower", None)
    pruner = resolve_pruner(**{name: value for name, value in given.items() if name not in names_of(NATIVE)})
    if pruner is None:
        raise ValueError(f"names no pruner; leave {ENTRY} out to serve without one")
    if pruner.needs & INSIDE_CUES:
        raise ValueError(f"{name_of(pruner)} cannot be served: it chooses inside the language model, which is vLLM's")
    options = PruningOptions.of(NATIVE, **given)
    _check_model(config)
    _check_block(config, options)
    reads_text = bool(options.needs & CLIP_TEXT_CUES)
    if text_tower is not None and not reads_text:
        raise ValueError(
            f"text_tower {text_tower!r} is for pruners that read the question with CLIP, not for {name_of(pruner)}"
        )
    settings = llava_settings(config)
    return Served(options, settings, _text_tower(config, text_tower, settings) if reads_text else None)


def _text_tower(config: PretrainedConfig, given: str | None, settings: Mapping[str, Any]) -> str:
    """The CLIP that a pruner reads the question with: the one given, the one recorded, or OpenAI's of that shape."""
    try:
        return resolve_tower(clip_of(config, given or settings.get("mm_vision_tower")), config.name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f'no CLIP for the text side: {error}. Give its folder or hub id, "text_tower": "openai/clip-..."'
        ) from error


def _check_block(config: PretrainedConfig, options: PruningOptions) -> None:
    """Refuse a pruner that looks into a block which the encoder does not have."""
    layer, blocks = object_layer(options), config.vision_config.num_hidden_layers
    if "object_attention" in options.needs and not 1 <= layer <= blocks:
        raise ValueError(f"object_attention of block {layer}: the vision encoder has blocks 1 to {blocks}")


def _check_model(config: PretrainedConfig) -> None:
    """Refuse what is no LLaVA of the kinds that were tested."""
    for name, (value, valid) in {
        "vision_config.model_type": (config.vision_config.model_type, (CLIPVisionConfig.model_type,)),
        "text_config.model_type": (config.text_config.model_type, tuple(BACKBONES)),
        "vision_feature_select_strategy": (config.vision_feature_select_strategy, ("default",)),
        "type of vision_feature_layer": (type(config.vision_feature_layer).__name__, ("int",)),
    }.items():
        if value not in valid:
            raise ValueError(f"cannot prune a model whose {name} is {value!r}; valid: {', '.join(valid)}")
