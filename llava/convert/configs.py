"""config.json of LLaVA and of Transformers' own LLaVA classes, each from the other."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlavaConfig, LlavaNextConfig, PretrainedConfig, PreTrainedModel

from llava.layout import check_pinpoints
from llava.model.builder import model_config
from llava.model.checkpoint import naming
from llava.model.multimodal_encoder.clip_encoder import read_tower_config

RECORD = "llava_format"  # the key under which Transformers' config keeps LLaVA's, for the way back
SELECT_STRATEGY = {"patch": "default", "cls_patch": "full"}
ARCHITECTURES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}
BACKBONES = {
    "llama": ("LlavaLlamaForCausalLM", "llava_llama"),
    "mistral": ("LlavaMistralForCausalLM", "llava_mistral"),
}
CLIP_L_336 = "openai/clip-vit-large-patch14-336"
_CLIP_L_336_SHAPE = {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 336, "patch_size": 14}
_CLIP_KEYS = (*_CLIP_L_336_SHAPE, "intermediate_size", "num_attention_heads", "hidden_act", "layer_norm_eps")
_OF_THE_FILE = {"architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "_name_or_path"}


def to_hf_config(
    raw: dict[str, Any],
    model_class: type[PreTrainedModel],
    folder: Path,
    clip: Path,
    tokenizer_config: dict[str, Any] | None = None,
) -> PretrainedConfig:
    """Return Transformers' config of a LLaVA checkpoint; the vocabulary is still LLaVA's.

    Args:
        raw: LLaVA's config.json in ``folder``.
        model_class: of this package, for the language model in it.
        clip: folder or hub id of the vision tower.
        tokenizer_config: tokenizer_config.json, recorded for the way back.

    Raises:
        ValueError: for what Transformers' classes cannot express.
    """
    _refuse_unknown(raw, folder / "config.json")
    vision = read_tower_config(str(clip))
    feature = raw.get("mm_vision_select_feature", "patch")
    patches = (vision.image_size // vision.patch_size) ** 2
    shared = {
        "text_config": _text_config(raw, model_class, folder),
        "vision_config": vision,
        "image_seq_length": patches + int(feature == "cls_patch"),
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": SELECT_STRATEGY[feature],
        "vision_feature_layer": raw.get("mm_vision_select_layer", -2),
    }
    if raw.get("image_aspect_ratio") == "anyres":
        config = LlavaNextConfig(image_grid_pinpoints=swapped(raw.get("image_grid_pinpoints")), **shared)
    else:
        config = LlavaConfig(**shared)
    config.architectures = [ARCHITECTURES[config.model_type]]
    record = {"config": {**raw, "mm_vision_tower": str(clip)}}
    setattr(config, RECORD, record | ({"tokenizer_config": tokenizer_config} if tokenizer_config else {}))
    return config


def to_llava_config(config: PretrainedConfig, vision_tower: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return LLaVA's config.json of a checkpoint of Transformers' classes, whose tower the checkpoint is to hold.

    Args:
        config: Transformers' config, with the record of LLaVA's if the checkpoint was LLaVA's before.
        vision_tower: CLIP checkpoint for the tower's settings, the image processor and the text side; None for the
            recorded one, or for OpenAI's if the tower has its shape.
        dtype: of the weights, for a config without a record.
    """
    raw = llava_settings(config, dtype)
    raw["mm_vision_tower"] = clip_of(config, vision_tower or raw.get("mm_vision_tower"))
    return raw | {"unfreeze_mm_vision_tower": True}


def llava_settings(config: PretrainedConfig, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Return LLaVA's config of a model of Transformers' classes: the recorded one, else what LLaVA has usually."""
    record = getattr(config, RECORD, {}).get("config")
    return dict(record) if record else _llava_config(config, dtype or config.dtype or torch.float32)


def read_hf_config(raw: dict[str, Any], folder: Path) -> PretrainedConfig:
    """Return the config of a checkpoint of Transformers' LLaVA classes; anything else is a ValueError."""
    if raw.get("model_type") not in ARCHITECTURES or "text_config" not in raw or "vision_config" not in raw:
        raise ValueError(
            f"{folder / 'config.json'} has model_type {raw.get('model_type')!r} and architectures "
            f"{raw.get('architectures')}; LLaVA's format can be written from {', '.join(ARCHITECTURES.values())}"
        )
    with naming(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder)
    problems = {
        "text_config.model_type": (config.text_config.model_type, tuple(BACKBONES)),
        "vision_config.model_type": (config.vision_config.model_type, ("clip_vision_model",)),
        "projector_hidden_act": (config.projector_hidden_act, ("gelu",)),
        "multimodal_projector_bias": (config.multimodal_projector_bias, (True,)),
        "type of vision_feature_layer": (type(config.vision_feature_layer).__name__, ("int",)),
    }
    _raise_on(problems, folder / "config.json", "LLaVA's format")
    return config


def swapped(pinpoints: str | list[list[int]]) -> list[list[int]]:
    """Turn canvases of (width, height), as LLaVA has them, into (height, width), Transformers' order, or back.

    The list keeps its order: of two canvases that suit an image equally well, both take the first.
    """
    return [[second, first] for first, second in check_pinpoints(pinpoints)]


def _refuse_unknown(raw: dict[str, Any], file: Path) -> None:
    anyres = raw.get("image_aspect_ratio") == "anyres"
    problems = {
        "mm_projector_type": (raw.get("mm_projector_type", "linear"), ("mlp2x_gelu",)),
        "mm_vision_select_feature": (raw.get("mm_vision_select_feature", "patch"), tuple(SELECT_STRATEGY)),
        "mm_use_im_start_end": (raw.get("mm_use_im_start_end", False), (False,)),
        "image_aspect_ratio": (raw.get("image_aspect_ratio"), ("pad", "anyres", "square", None)),
        "mm_patch_merge_type": (
            raw.get("mm_patch_merge_type", "flat"),
            ("spatial_unpad",) if anyres else ("flat", "spatial"),
        ),
    }
    _raise_on(problems, file, "Transformers' classes")
    if anyres and "image_grid_pinpoints" not in raw:
        raise ValueError(f"{file}: image_aspect_ratio is 'anyres', but there are no image_grid_pinpoints")


def _raise_on(problems: dict[str, tuple[Any, tuple]], file: Path, target: str) -> None:
    for key, (value, valid) in problems.items():
        if value not in valid:
            names = ", ".join(map(repr, valid))
            raise ValueError(f"{file}: {key} is {value!r}; {target} can only express {names}")


def _text_config(raw: dict[str, Any], model_class: type[PreTrainedModel], folder: Path) -> PretrainedConfig:
    backbone = model_class.config_class.__base__
    known = set(backbone().to_dict()) - _OF_THE_FILE
    whole = model_config(model_class, raw, folder).to_dict()
    return backbone(**{key: value for key, value in whole.items() if key in known})


def _llava_config(config: PretrainedConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return the config of a checkpoint that never was LLaVA's, such as those of llava-hf."""
    architecture, model_type = BACKBONES[config.text_config.model_type]
    anyres = isinstance(config, LlavaNextConfig)
    text = {key: value for key, value in config.text_config.to_dict().items() if key not in _OF_THE_FILE}
    strategies = {strategy: feature for feature, strategy in SELECT_STRATEGY.items()}
    raw = {
        **text,
        "architectures": [architecture],
        "model_type": model_type,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "vocab_size": config.image_token_index,  # the text's own tokens; the image token is the first that was added
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": strategies[config.vision_feature_select_strategy],
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_aspect_ratio": "anyres" if anyres else "pad",
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 4096 if anyres else 2048,  # what LLaVA-1.6 and 1.5 are trained with
    }
    if anyres:
        raw |= {"mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": swapped(config.image_grid_pinpoints)}
    return raw


def clip_of(config: PretrainedConfig, name: str | None) -> str:
    """Return the CLIP checkpoint that LLaVA's config names, once it is known to have this tower's settings.

    Raises:
        ValueError: ``name`` is a folder of another CLIP's; or None, and the tower is not of the shape of OpenAI's.
    """
    own = config.vision_config.to_dict()
    if name is None and all(own[key] == value for key, value in _CLIP_L_336_SHAPE.items()):
        return CLIP_L_336
    if name is None:
        raise ValueError("the config names no CLIP checkpoint for its vision tower: give one with --vision-tower")
    if Path(name).is_dir():
        clip = read_tower_config(name).to_dict()
        if differing := [key for key in _CLIP_KEYS if own[key] != clip[key]]:
            pairs = ", ".join(f"{key} {own[key]!r} here and {clip[key]!r} there" for key in differing)
            raise ValueError(f"the vision tower is not that of {name}: {pairs}")
        return str(Path(name).resolve())
    return name
