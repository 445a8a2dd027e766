"""A projector or a LoRA, and the language model that it belongs to."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llava.model.adapter import SETTINGS, WEIGHTS, Adapter, plain_name, plain_names, read_adapter, replace_weights
from llava.model.checkpoint import has_weights, load_tensors, read_json, refuse_missing, weight_shapes
from llava.model.config_checks import check_tuned_tower
from llava.model.vocabulary import add_image_tokens, grow_vocabulary, has_tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

BESIDE_LORA, PROJECTOR = "non_lora_trainables.bin", "mm_projector.bin"
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
FAMILIES = {"llava_llama": ("llama", "llava", "llava_llama"), "llava_mistral": ("mistral", "llava_mistral", "llava")}
# What the weights' shapes do not tell: with other values of these, the same weights are another model.
SAME_IN_BASE = ("num_attention_heads", "num_key_value_heads", "hidden_act", "rms_norm_eps", "rope_parameters")

LoadBase = Callable[[Path, bool], tuple[PreTrainedModel, set[str]]]


def is_lora(folder: Path) -> bool:
    """Whether a folder is, or was before a file was lost, that of a LoRA."""
    return any((folder / name).is_file() for name in (SETTINGS, *WEIGHTS, BESIDE_LORA))


def check_base(folder: Path, base: str | None) -> None:
    """Raise ValueError where a LoRA or a projector is given without its base, or a base without either."""
    projector = (folder / PROJECTOR).is_file()
    if base is None and (is_lora(folder) or (projector and not has_weights(folder))):
        kind = "a LoRA, an adapter" if is_lora(folder) else "a projector"
        raise ValueError(
            f"{folder} is {kind} for a language model, which model_base (--model-base) must name, a folder or hub id"
        )
    if base is not None and not is_lora(folder) and not projector:
        what = "a whole checkpoint" if has_weights(folder) else "neither a LoRA nor a projector"
        raise FileNotFoundError(
            f"{folder} is {what}, to which model_base {base} does not apply: "
            f"a LoRA has {SETTINGS} and {BESIDE_LORA}, a projector {PROJECTOR}"
        )


def load_on_base(
    config: PretrainedConfig, folder: Path, base: Path, load: LoadBase
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, Adapter | None, set[str]]:
    """Load a language model and put on top of it what ``folder`` holds, but for the LoRA itself.

    Args:
        config: of ``folder``, as ``model_config`` returns it.
        folder: of the projector or the LoRA.
        base: of the language model, or of a LLaVA model in its place.
        load: loads the weights in a folder, given whether a vision tower is among them; returns the model and the
            names of weights that were not there.

    Returns:
        tokenizer, model, the LoRA that is still to be merged once the vision tower is loaded, None for a projector,
        and the names of the weights that came from ``folder``.

    Raises:
        FileNotFoundError, ValueError: files are missing or damaged, or do not belong to each other; names them.
    """
    adapter = read_adapter(folder) if is_lora(folder) else None
    file = folder / (PROJECTOR if adapter is None else BESIDE_LORA)
    extra = load_tensors(file)
    shapes = weight_shapes(base)
    _check_family(config, base, adapter)
    if getattr(config, "quantization_config", None) is not None:  # of the training, as for QLoRA; not of the base
        logger.warning("%s was trained on a quantised base: load_4bit and load_8bit quantise it here", folder)
        del config.quantization_config
    asked, config.vocab_size = config.vocab_size, _rows(shapes, base)
    with_tower = any("vision_tower." in name for name in {*extra, *shapes})
    adapted = adapter is not None and any("vision_tower." in module for module, _, _ in adapter.lora)
    check_tuned_tower(config, with_tower or adapted, folder)
    model, missing = load(base, with_tower)
    tokenizer = _tokenizer(folder, base)
    known = model.state_dict()
    extra = plain_names(extra, known, file)
    add_image_tokens(tokenizer, config, max(_table_rows(extra, adapter), config.vocab_size), base)
    rows = max(len(tokenizer), _table_rows(extra, adapter))
    if asked > max(rows, config.vocab_size):
        raise ValueError(
            f"{folder / 'config.json'} has vocab_size {asked}, {base} {config.vocab_size}, and {file.name} no more rows"
        )
    grow_vocabulary(model, rows)
    _check_projector(model, extra, file, whole=adapter is None)
    replace_weights(model, extra, file)
    refuse_missing(missing - set(extra), folder)
    return tokenizer, model, adapter, set(extra)


def _rows(shapes: dict[str, tuple[int, ...]], base: Path) -> int:
    if TABLES[0] not in shapes:
        raise ValueError(f"{base} lacks weights: {TABLES[0]}; it is no language model of LLaVA's")
    return shapes[TABLES[0]][0]


def _table_rows(extra: dict[str, Tensor], adapter: Adapter | None) -> int:
    """Return how many rows the tables of words have that come with a projector or a LoRA; 0 if none comes."""
    whole = {} if adapter is None else adapter.whole
    known = dict.fromkeys(TABLES)
    named = {plain_name(name, known): tensor for name, tensor in {**extra, **whole}.items()}
    return max((len(named[table]) for table in TABLES if table in named), default=0)


def _tokenizer(folder: Path, base: Path) -> PreTrainedTokenizerBase:
    """Return the base's tokenizer, or the folder's own where that knows more tokens."""
    tokenizer = load_tokenizer(base)
    own = load_tokenizer(folder) if has_tokenizer(folder) else tokenizer
    return own if len(own) > len(tokenizer) else tokenizer


def _check_projector(model: PreTrainedModel, extra: dict[str, Tensor], file: Path, whole: bool) -> None:
    """Refuse a part of a projector: a base that is LLaVA's own would lend the other part of another."""
    needed = {name for name in model.state_dict() if name.startswith("model.mm_projector.")}
    if whole or needed & set(extra):
        refuse_missing(needed - set(extra), file)


def _check_family(config: PretrainedConfig, base: Path, adapter: Adapter | None) -> None:
    """Refuse a base of another kind than was trained on; warn of one of another name."""
    file = base / "config.json"
    if file.is_file():
        raw = read_json(file)
        family = raw.get("model_type")
        if family is not None and family not in FAMILIES[config.model_type]:
            valid = ", ".join(FAMILIES[config.model_type])
            raise ValueError(f"{file} has model_type {family!r}; what is put on top needs one of {valid}")
        if differing := _differing(config, raw):
            raise ValueError(f"{base} is not what {config.name_or_path} was trained on: {', '.join(differing)}")
    trained_on = str((adapter.settings if adapter else {}).get("base_model_name_or_path") or "")
    names = [Path(name.strip("/")).name.lower() for name in (trained_on, str(base.resolve()))]
    if trained_on and names[0] != names[1] and names[0] not in str(base).lower():
        logger.warning("the LoRA was trained on %s; model_base is %s: is it the same?", trained_on, base)


def _differing(config: PretrainedConfig, raw: dict[str, Any]) -> list[str]:
    """Return settings of the base's config.json that differ from those it is loaded with."""
    given = type(config).from_dict({key: value for key, value in raw.items() if key != "model_type"})
    pairs = {key: (getattr(given, key, None), getattr(config, key, None)) for key in SAME_IN_BASE}
    return [f"{key} {there!r} there, {here!r} here" for key, (there, here) in pairs.items() if there != here]
