"""Turn a LLaVA checkpoint into one of Transformers' own LlavaForConditionalGeneration or LlavaNext, or back."""

import json
import logging
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPImageProcessorPil, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from llava import compat
from llava.command import reason
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.convert.configs import RECORD, read_hf_config, to_hf_config, to_llava_config
from llava.convert.names import hf_name
from llava.convert.processors import hf_image_processor, hf_processor, hf_tokenizer
from llava.convert.weights import EMBEDDINGS, add_tower, check_weights, read_weights, resize_vocabulary, write_weights
from llava.model.builder import load_tokenizer, model_class_of
from llava.model.checkpoint import checkpoint_folder, naming, read_config, read_json
from llava.model.language_model.llava_mistral import LlavaMistralForCausalLM
from llava.model.multimodal_encoder.builder import resolve_tower
from llava.records import InputError, local_path

logger = logging.getLogger(__name__)

TOKENIZER, TOKENIZER_SETTINGS = "tokenizer.model", "tokenizer_config.json"
VOCABULARY_MULTIPLE = 64  # as in llava-hf's checkpoints: 32000 tokens become 32064 rows


def to_hf(
    source: Path, target: Path, vision_tower: str | None = None, conv_mode: str | None = None, shard_size: str = "5GB"
) -> None:
    """Write a LLaVA checkpoint as Transformers' classes read it.

    Args:
        source: folder of the checkpoint.
        target: folder to create; it must not be there.
        vision_tower: CLIP checkpoint in place of the one that ``mm_vision_tower`` names.
        conv_mode: one of ``CONV_MODES``, for the chat template; None for that of the language model.
        shard_size: largest file of weights.

    Raises:
        OSError, ValueError: for a checkpoint, or a tower, that is not there, not whole or not LLaVA's.
    """
    refuse_existing(target)
    raw = read_config(source)
    model_class = model_class_of(raw, source)
    clip = resolve_tower(vision_tower or raw["mm_vision_tower"], str(source))
    config = to_hf_config(raw, model_class, source, clip, read_tokenizer_settings(source))
    tokenizer = hf_tokenizer(load_tokenizer(source))
    weights = add_tower(read_weights(source), lambda: checkpoint_folder(clip))
    weights = check_weights(weights, config, source)
    set_vocabulary(config, weights, tokenizer)
    with naming(f"the image processor of {clip}"), compat.from_hub(clip):
        image_processor = hf_image_processor(CLIPImageProcessorPil.from_pretrained(clip), raw, config)
    if conv_mode is None:
        conv_mode = "mistral_instruct" if model_class is LlavaMistralForCausalLM else "vicuna_v1"
    with new_folder(target) as folder:
        weights = resize_vocabulary(weights, config.text_config.vocab_size)
        write_weights({hf_name(name): tensor for name, tensor in weights.items()}, folder, shard_size)
        config.save_pretrained(folder)
        generation_config(config.text_config.to_dict(), tokenizer.pad_token_id).save_pretrained(folder)
        hf_processor(image_processor, tokenizer, config, conv_mode).save_pretrained(folder)
        if (source / TOKENIZER).is_file():
            shutil.copy(source / TOKENIZER, folder)


def to_llava(source: Path, target: Path, vision_tower: str | None = None, shard_size: str = "5GB") -> None:
    """Write a checkpoint of Transformers' LLaVA classes in LLaVA's format, the vision tower inside.

    Args:
        source: folder of the checkpoint, converted by ``to_hf`` or of another origin (llava-hf's).
        target: folder to create; it must not be there.
        vision_tower: CLIP checkpoint that ``mm_vision_tower`` is to name; None for what is known of it.
        shard_size: largest file of weights.

    Raises:
        OSError, ValueError: for a checkpoint that is not there, not whole or not expressible.
    """
    refuse_existing(target)
    config = read_hf_config(read_config(source), source)
    if not (source / TOKENIZER).is_file():
        raise FileNotFoundError(f"{source / TOKENIZER} is missing: LLaVA's checkpoints have no other tokenizer")
    weights = check_weights(read_weights(source), config, source)
    raw = to_llava_config(config, vision_tower, weights[EMBEDDINGS].dtype)
    recorded = getattr(config, RECORD, {}).get("tokenizer_config")
    settings = recorded or tokenizer_settings(config.text_config.model_type, raw["tokenizer_model_max_length"])
    with new_folder(target) as folder:
        write_weights(resize_vocabulary(weights, raw["vocab_size"]), folder, shard_size)
        for name, content in (("config.json", raw), (TOKENIZER_SETTINGS, settings)):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        shutil.copy(source / TOKENIZER, folder)
        generation_config(raw, raw.get("pad_token_id")).save_pretrained(folder)


def set_vocabulary(config: PretrainedConfig, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into Transformers' config how many rows the embeddings will have, in which dtype, and the image's id."""
    rows = max(len(weights[EMBEDDINGS]), len(tokenizer))
    config.text_config.vocab_size = rows + -rows % VOCABULARY_MULTIPLE
    config.image_token_index = tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    config.dtype = config.text_config.dtype = weights[EMBEDDINGS].dtype


def generation_config(ids: dict[str, Any], pad_token_id: int | None) -> GenerationConfig:
    """Return generation settings that name the special tokens and leave sampling to the caller."""
    return GenerationConfig(
        bos_token_id=ids.get("bos_token_id"), eos_token_id=ids.get("eos_token_id"), pad_token_id=pad_token_id
    )


def read_tokenizer_settings(folder: Path) -> dict[str, Any] | None:
    """Return the contents of tokenizer_config.json, if there is one."""
    file = folder / TOKENIZER_SETTINGS
    return read_json(file) if file.is_file() else None


def tokenizer_settings(backbone: str, max_length: int) -> dict[str, Any]:
    """Return tokenizer_config.json as LLaVA's checkpoints on this backbone ("llama", "mistral") have it."""
    return {
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": backbone == "mistral",
        "model_max_length": max_length,
        "padding_side": "right",
    }


def refuse_existing(target: Path) -> None:
    """Raise if there is something where the output is to be."""
    if target.exists():
        raise FileExistsError(f"--output-path {target} is there already: give another one, or remove it")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder that becomes ``target`` when all is written into it, and vanishes if something fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        unfinished = Path(folder) / target.name
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(target)


def convert(args: Namespace) -> None:
    """Convert what the command line names."""
    if args.to == "llava" and args.conv_mode is not None:
        raise InputError("--conv-mode chooses a chat template, which LLaVA's format does not have: leave it out")
    target = local_path(args.output_path)
    try:
        refuse_existing(target)
        source = checkpoint_folder(args.model_path)
        if args.to == "hf":
            to_hf(source, target, args.vision_tower, args.conv_mode, args.max_shard_size)
        else:
            to_llava(source, target, args.vision_tower, args.max_shard_size)
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error
    except (KeyError, RuntimeError, TypeError) as error:  # what libraries say about a config that lacks something
        raise InputError(f"cannot convert {args.model_path}: {reason(error)}") from error
    logger.info("%s is written", target)
