"""Loading LLaVA checkpoints: LLaVA's entry point, and what pruning adds to it."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llava.model.adapter import merge
from llava.model.checkpoint import (
    checkpoint_folder,
    is_computed,
    listed,
    naming,
    read_config,
    read_json,
    refuse_beyond,
    refuse_mismatched,
    refuse_missing,
    weight_shapes,
)
from llava.model.config_checks import check_config, check_quantization, check_tuned_tower
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralForCausalLM
from llava.model.loading import plan
from llava.model.on_base import check_base, load_on_base
from llava.model.placement import Placement
from llava.model.vocabulary import add_image_tokens, grow_vocabulary, load_tokenizer, refuse_untrained
from llava.pruners import Pruner
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.options import PruningOptions
from llava.selecting.references import read_erank_refs

logger = logging.getLogger(__name__)

MODEL_CLASSES = {
    "llava": LlavaLlamaForCausalLM,
    "llava_llama": LlavaLlamaForCausalLM,
    "llava_mistral": LlavaMistralForCausalLM,
    "LlavaLlamaForCausalLM": LlavaLlamaForCausalLM,
    "LlavaMistralForCausalLM": LlavaMistralForCausalLM,
}
GENERATION = "generation_config.json"
BASES = {"LlamaForCausalLM": LlavaLlamaForCausalLM, "MistralForCausalLM": LlavaMistralForCausalLM}


def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str | None = None,
    use_flash_attn: bool = False,
    *,
    pruner: str | Pruner | None = None,
    visual_token_num: int | None = None,
    keep_ratio: float | None = None,
    anyres: str = "native",
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, CLIPImageProcessorPil, int]:
    """Load a LLaVA checkpoint.

    Args:
        model_path: folder or hub id of the checkpoint; of the LoRA or the projector when ``model_base`` is given.
        model_base: folder or hub id of the language model that a LoRA or a projector belongs to.
        model_name: kept for LLaVA's callers; what is loaded is read from the checkpoint's config.
        load_8bit, load_4bit: quantise with bitsandbytes (extra ``quant``).
        device_map: "auto" or any map of accelerate's; None puts everything on ``device``.
        device: "cuda", "cpu", "cuda:1", ...; a GPU, or else the CPU, if not given. Without a GPU "cuda" means the CPU,
            with a warning, and "cuda:1" is an error.
        use_flash_attn: the old name of ``attn_implementation="flash_attention_2"``.
        pruner: name or instance of a pruner; None is plain LLaVA. As in the releases, ``visual_token_num`` alone means
            CDPruner, together with ``important_ratio`` VisPruner.
        visual_token_num, keep_ratio: the budget per tile, as a number or as a share.
        anyres: "native", LLaVA-NeXT's own layout, or "fixed", the 2 x 2 tiles without newlines of the papers.
        dtype: a torch.dtype or its name; None means float16 on a GPU and float32 on a CPU.
        options: the pruner's options; ``budget_scope`` ("tile", "image"), ``positions`` ("compact", "original"),
            ``budget`` ("fixed", "spectral", "mass") with ``erank_ref``, ``mass`` and ``budget_split``,
            ``prune_layer``, the decoder layer from which on the kept tokens are alone, counted from 0, the default,
            which prunes before the language model (from 1 on, positions are original),
            ``text_chunking`` ("release", "bos_eos"), ``vision_dtype``, ``attn_implementation``, ``torch_dtype``, the
            old name of ``dtype``, and ``cuda_graphs``: True captures image side, prefill and decoding steps and replays
            them; for a model on one CUDA device.

    Returns:
        tokenizer, model, image processor and context length in tokens.

    Raises:
        TypeError: for an option that nobody reads.
        ValueError, ImportError: for an option with a wrong value, or one that needs a package that is not installed;
            before the checkpoint is looked at.
        FileNotFoundError, ValueError: for a checkpoint that is not there, not LLaVA's, or not whole.
    """
    options |= {"pruner": pruner, "visual_token_num": visual_token_num, "keep_ratio": keep_ratio}
    options |= {"anyres": anyres, "dtype": dtype}
    pruning, place = plan(load_8bit, load_4bit, device_map, device, use_flash_attn, **options)
    folder, base, model_class, config = _checked(model_path, model_base, pruning.prune_layer)
    pruning.completed(read_erank_refs(folder))  # before a weight is read
    adapter, replaced = None, set()
    if base is None:
        tokenizer, model = _load_whole(model_class, config, folder, place)
    else:
        load = partial(_from_pretrained, model_class, config, place)
        tokenizer, model, adapter, replaced = load_on_base(config, folder, base, load)
    model.generation_config = _greedy_generation(model, tokenizer)
    _load_tower(model, place, pruning)
    if adapter is not None:  # only now that there is a tower, whose weights it may change
        model = merge(model, adapter, replaced)
    model.word_tokenizer = tokenizer
    model.erank_refs = read_erank_refs(folder)
    model.pruning = pruning
    if anyres == "fixed":
        model.fix_layout()
    model.cuda_graphs = place.cuda_graphs
    return tokenizer, model.eval(), model.get_vision_tower().image_processor, _context_length(config)


def _checked(
    model_path: str, model_base: str | None, prune_layer: int
) -> tuple[Path, Path | None, type[PreTrainedModel], PretrainedConfig]:
    """The folders of a checkpoint and of its base, its class and its config, checked before a weight is read."""
    folder = checkpoint_folder(model_path)
    raw_config = read_config(folder)
    model_class = model_class_of(raw_config, folder)
    check_base(folder, model_base)
    config = model_config(model_class, raw_config, folder)
    base = None if model_base is None else checkpoint_folder(model_base)
    check_config(config, folder, base)
    if prune_layer >= config.num_hidden_layers:
        raise ValueError(f"prune_layer {prune_layer}: {folder} has {config.num_hidden_layers} decoder layers")
    return folder, base, model_class, config


def model_class_of(raw_config: dict[str, Any], folder: Path) -> type[PreTrainedModel]:
    """Choose the class by what config.json says, never by the name of the folder."""
    architectures, model_type = raw_config.get("architectures") or [], raw_config.get("model_type")
    by_type = MODEL_CLASSES.get(str(model_type))
    # A LoRA or a projector keeps its base's architecture, and says by its type alone that it is LLaVA's.
    classes = MODEL_CLASSES | (BASES if by_type is not None else {})
    named = [classes[name] for name in architectures if name in classes]
    chosen = named[0] if named else None if architectures else by_type
    # "llava" is what LLaVA's first checkpoints say, whatever they are made of.
    agreed = model_type in (None, "llava") or by_type is chosen
    if chosen is not None and agreed and "mm_vision_tower" in raw_config:
        return chosen
    hint = ""
    if any(str(name).endswith("ForConditionalGeneration") for name in architectures):
        hint = ". This is Transformers' own format: llava.pruning.prune prunes its models, and "
        hint += "scripts/convert_llava_to_hf.py --to llava turns its LLaVA into this one"
    raise ValueError(
        f"{folder / 'config.json'} has architectures {raw_config.get('architectures')} and model_type {model_type!r}; "
        f"LLaVA's checkpoints have one of {', '.join(MODEL_CLASSES)} and a mm_vision_tower{hint}"
    )


def model_config(model_class: type[PreTrainedModel], raw_config: dict[str, Any], folder: Path) -> PretrainedConfig:
    """Return the config of a checkpoint as its class reads it; ValueError for values that it does not take."""
    # The old model_type "llava" is the name of another architecture today, so it must not reach transformers.
    with naming(folder / "config.json"):
        config = model_class.config_class.from_dict({k: v for k, v in raw_config.items() if k != "model_type"})
    config.name_or_path = str(folder)
    return config


def _from_pretrained(
    model_class: type[PreTrainedModel], config: PretrainedConfig, place: Placement, folder: Path, with_tower: bool
) -> tuple[PreTrainedModel, set[str]]:
    """Load the weights in ``folder``; return the model and the names of the weights that were not there."""
    options: dict[str, Any] = {"device_map": place.device_map, "dtype": place.dtype}
    if place.attn_implementation is not None:
        options["attn_implementation"] = place.attn_implementation
    if place.quantization is not None:
        options["quantization_config"] = place.quantization
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # they are refused by name here
    if (folder / GENERATION).is_file():
        # Of a broken one, Transformers says nothing and takes its own; of LLaVA's, it says what is not taken anyway.
        ends = read_json(folder / GENERATION).get("eos_token_id")
        options["generation_config"] = GenerationConfig(eos_token_id=ends)
    with naming(folder):
        model, report = model_class.from_pretrained(folder, config=config, tower_in_checkpoint=with_tower, **options)
    refuse_mismatched(report["mismatched_keys"], folder)
    if config.tie_word_embeddings and model.lm_head.weight is not model.get_input_embeddings().weight:
        raise ValueError(f"{folder} has two different tables of words, and its config sets tie_word_embeddings")
    unread = {name for name in report["unexpected_keys"] if not is_computed(name)}
    refuse_beyond(unread, folder)
    if unread:
        logger.warning("%s holds weights that nothing reads: %s", folder, listed(unread))
    return model, set(report["missing_keys"])


def _load_whole(
    model_class: type[PreTrainedModel], config: PretrainedConfig, folder: Path, place: Placement
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    names = set(weight_shapes(folder))
    check_quantization(config, names, folder, place.quantization is not None)
    with_tower = any(name.startswith("model.vision_tower.") for name in names)
    check_tuned_tower(config, with_tower, folder)
    tokenizer = load_tokenizer(folder)
    model, missing = _from_pretrained(model_class, config, place, folder, with_tower)
    refuse_missing(missing, folder)
    rows = model.get_input_embeddings().num_embeddings
    add_image_tokens(tokenizer, config, rows, folder)
    refuse_untrained(tokenizer, config, rows, folder)
    grow_vocabulary(model, len(tokenizer))
    return tokenizer, model


def _greedy_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return generation settings that leave sampling to the caller; the checkpoints' own would leak into every call.

    What ends an answer is the checkpoint's: generation_config.json may name more than config.json.
    """
    config, stored = model.config, model.generation_config
    ends = config.eos_token_id if stored is None or stored.eos_token_id is None else stored.eos_token_id
    return GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)


def _load_tower(model: PreTrainedModel, place: Placement, pruning: PruningOptions) -> None:
    """Bring the vision tower to the model's device; its text side comes along if the pruner reads it."""
    tower = model.get_vision_tower()
    if tower.is_loaded:
        tower.to(dtype=place.vision_dtype)
        if place.attn_implementation is not None:
            tower.vision_tower.set_attn_implementation(place.attn_implementation)
        return
    tower.load_model(
        device_map={"": model.device},
        dtype=place.vision_dtype,
        attn_implementation=place.attn_implementation,
        text_chunking=pruning.text_chunking if pruning.needs & CLIP_TEXT_CUES else None,
    )


def _context_length(config: PretrainedConfig) -> int:
    """Return the longest prompt in tokens, visual tokens included."""
    if hasattr(config, "max_sequence_length"):
        return config.max_sequence_length
    limits = (getattr(config, "tokenizer_model_max_length", None), getattr(config, "max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=2048)
