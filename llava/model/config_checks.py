"""Whether a checkpoint's config asks for something that this package does, found out before a weight is read."""

from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPVisionConfig, PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava.layout import MERGE_TYPES, SELECT_FEATURES, check_aspect_ratio, check_key, check_pinpoints
from llava.model.checkpoint import naming
from llava.model.multimodal_encoder.builder import tower_of
from llava.model.multimodal_encoder.clip_encoder import read_tower_config
from llava.model.multimodal_projector.builder import projector_depth

_OF_BITSANDBYTES = (".SCB", ".absmax", ".quant_map")


def check_config(config: PretrainedConfig, folder: Path, base: Path | None = None) -> None:
    """Refuse what a LLaVA config asks for and nothing here does: layouts, layers, projectors, towers.

    Args:
        config: as ``model_config`` returns it; its ``mm_vision_tower`` becomes what is found by that name.
        folder: of the checkpoint; its config.json is named in errors.
        base: of the language model that the checkpoint is put on.

    Raises:
        FileNotFoundError: there is no such vision tower.
        ValueError: for the rest; names file, key and valid values.
    """
    with naming(folder / "config.json"):
        _check_modules(config)
        config.mm_vision_tower = tower_of(config, str(folder), base and str(base))
        tower = read_tower_config(config.mm_vision_tower)
        _check_features(config, tower)
        _check_layout(config, tower)


def check_quantization(config: PretrainedConfig, names: Iterable[str], folder: Path, asked: bool) -> None:
    """Refuse a checkpoint that says it is quantised and is not, or is in a way that nothing here reads.

    ``names`` are those of its weights; ``asked`` says whether it is to be quantised while it is loaded.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return
    method = stored.get("quant_method") if isinstance(stored, dict) else stored
    quantised = any(name.endswith(_OF_BITSANDBYTES) or ".quant_state." in name for name in names)
    if method != "bitsandbytes" or not quantised:
        raise ValueError(
            f"{folder / 'config.json'} has quantization_config {method!r}; only what bitsandbytes saved is read: "
            "load the unquantised checkpoint, with load_4bit or load_8bit where memory is short"
        )
    if asked:
        raise ValueError(f"{folder} is quantised already: leave load_4bit and load_8bit out")


def check_tuned_tower(config: PretrainedConfig, in_checkpoint: bool, folder: Path) -> None:
    """Refuse a checkpoint whose vision tower was trained and is lost: CLIP's own would be another."""
    if getattr(config, "unfreeze_mm_vision_tower", False) and not in_checkpoint:
        raise ValueError(
            f"{folder} lacks weights: its config sets unfreeze_mm_vision_tower, and there is no model.vision_tower"
        )


def _check_modules(config: PretrainedConfig) -> None:
    check_key("hidden_act", config.hidden_act, tuple(ACT2FN))
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    check_key("rope_type", rope, ("default", *ROPE_INIT_FUNCTIONS))
    kinds = getattr(config, "layer_types", None) or []
    windows = ("sliding_attention",) if getattr(config, "sliding_window", None) else ()
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        check_key("layer_types", kind, ("full_attention", *windows))
    if not config.return_dict:
        raise ValueError("return_dict false is not supported: what is inside reads outputs by name")
    check_key("mm_resampler_type", getattr(config, "mm_resampler_type", None), (None,))
    for flag in ("mm_use_im_start_end", "mm_use_im_patch_token"):
        if type(getattr(config, flag, False)) is not bool:
            raise ValueError(f"{flag} {getattr(config, flag)!r} is not one of true, false")
    check_key("tokenizer_padding_side", getattr(config, "tokenizer_padding_side", None), (None, "left", "right"))
    for limit in ("tokenizer_model_max_length", "max_sequence_length"):
        length = getattr(config, limit, None)
        if length is not None and not (type(length) is int and length > 0):
            raise ValueError(f"{limit} {length!r} is not a number of tokens")


def _check_features(config: PretrainedConfig, tower: CLIPVisionConfig) -> None:
    check_key("mm_vision_select_feature", getattr(config, "mm_vision_select_feature", "patch"), SELECT_FEATURES)
    layer, blocks = getattr(config, "mm_vision_select_layer", None), tower.num_hidden_layers
    if type(layer) is not int or not -blocks - 1 <= layer <= blocks:
        raise ValueError(f"mm_vision_select_layer {layer!r} is not one of -{blocks + 1} to {blocks}: see the tower")
    depth = projector_depth(getattr(config, "mm_projector_type", "linear"))
    width = getattr(config, "mm_hidden_size", None) if depth else config.hidden_size
    if width != tower.hidden_size:
        name = "mm_hidden_size" if depth else "mm_projector_type identity: hidden_size"
        raise ValueError(f"{name} is {width!r}, the width of mm_vision_tower {tower.hidden_size}")


def _check_layout(config: PretrainedConfig, tower: CLIPVisionConfig) -> None:
    ratio = check_aspect_ratio(getattr(config, "image_aspect_ratio", None))
    merge_type = getattr(config, "mm_patch_merge_type", "flat")
    check_key("mm_patch_merge_type", merge_type, MERGE_TYPES)
    if ratio != "anyres":
        return
    check_pinpoints(getattr(config, "image_grid_pinpoints", None), tower.image_size)
    if merge_type != "flat" and getattr(config, "mm_vision_select_feature", "patch") == "cls_patch":
        raise ValueError(
            f"mm_patch_merge_type {merge_type} lays patches out; mm_vision_select_feature cls_patch adds one"
        )
