"""A LoRA in peft's format: read whole, matched to the model weight by weight, merged into it."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llava.model.checkpoint import listed, load_tensors, naming, read_json, refuse_mismatched

logger = logging.getLogger(__name__)

SETTINGS = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "model."  # of peft's model around ours
_LORA = re.compile(r"^(.+)\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.default)?(\.weight|\.bias)?$")
# What peft can do beyond a LoRA that is merged: layers of its own, tokens of its own, adapters that act now and then.
_BEYOND = (
    *("layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config"),
    *("use_qalora", "use_bdlora", "megatron_config", "velora_config", "monteclora_config", "kasa_config"),
)
_OF_THE_FILE = ("peft_version", "auto_mapping", "revision", "task_type", "base_model_name_or_path")
_REPLACED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias")


@dataclass(frozen=True)
class Adapter:
    """What a folder of a LoRA holds.

    Args:
        file: of its weights; ``settings`` are those of adapter_config.json.
        lora: the low-rank weights, by module and part ("lora_A", ".weight"), the module as the file calls it.
        whole: weights that replace the model's, such as those of ``modules_to_save`` and biases.
    """

    folder: Path
    file: Path
    settings: dict[str, Any]
    lora: dict[tuple[str, str, str], Tensor]
    whole: dict[str, Tensor]


def read_adapter(folder: Path) -> Adapter:
    """Read a LoRA's settings and weights.

    Raises:
        ImportError: peft is missing; names the extra.
        FileNotFoundError, ValueError: a file is missing or damaged, or asks for what cannot be merged; names it.
    """
    settings = read_json(folder / SETTINGS)
    with naming(folder / SETTINGS):
        _check_settings(settings)
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} lacks the adapter's weights: neither {' nor '.join(WEIGHTS)} is there")
    lora, whole = {}, {}
    for name, tensor in load_tensors(found[0]).items():
        match = _LORA.match(name)
        if match is None:
            whole[name] = tensor
        else:
            lora[match[1], match[2], match[3] or ""] = tensor
    if not lora:
        raise ValueError(f"{found[0]} holds no weights of a LoRA")
    return Adapter(folder, found[0], settings, lora, whole)


def _check_settings(settings: dict[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"peft_type {kind!r} is not LORA, the one kind of adapter that is merged here")
    if beyond := [f"{name} {settings[name]!r}" for name in _BEYOND if settings.get(name)]:
        raise ValueError(f"it asks for what is not merged here: {', '.join(beyond)}")
    known = set(_lora_config().__dataclass_fields__)
    if unknown := [name for name, value in settings.items() if name not in known and value]:
        raise ValueError(f"the installed peft does not know its {listed(unknown)}: a newer one may")
    if not settings.get("target_modules"):
        raise ValueError("target_modules is missing or empty")


def _lora_config() -> type:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError("LoRA checkpoints need peft: pip install -e '.[lora]', or pip install peft") from error
    return LoraConfig


def plain_name(name: str, known: Mapping[str, Any]) -> str | None:
    """Return which of the ``known`` names a weight has, given with what training wrappers and older CLIPs put into it.

    In front of ``name``, as a file has it, ``base_model.``, ``module.`` and a doubled ``model.`` may stand.
    """
    name = name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
    name = name.replace("vision_tower.vision_model.", "vision_tower.")
    while True:
        for candidate in (name, f"model.{name}"):
            if candidate in known:
                return candidate
        head, _, rest = name.partition(".")
        if head not in ("base_model", "model", "module"):
            return None
        name = rest


def plain_names(tensors: dict[str, Tensor], known: Mapping[str, Any], where: Path) -> dict[str, Tensor]:
    """Return tensors by the model's names; ValueError for one that the model does not have, or has twice."""
    named, foreign = {}, []
    for name, tensor in tensors.items():
        plain = plain_name(name, known)
        if plain is None:
            foreign.append(name)
        elif plain in named:
            raise ValueError(f"{where} holds {plain} twice")
        else:
            named[plain] = tensor
    if foreign:
        raise ValueError(f"{where} holds weights that the model does not have: {listed(foreign)}")
    return named


@torch.no_grad()
def replace_weights(model: PreTrainedModel, tensors: dict[str, Tensor], where: Path) -> None:
    """Copy weights, by the model's names, into the model.

    Raises:
        ValueError: a shape differs, or a weight is kept on disk, where nothing can be copied to.
    """
    weights = model.state_dict()
    shapes = ((name, tensor.shape, weights[name].shape) for name, tensor in tensors.items())
    refuse_mismatched((each for each in shapes if each[1] != each[2]), where)
    if absent := [name for name in tensors if weights[name].is_meta]:
        raise ValueError(
            f"{where}: the device_map offloads {listed(absent)}, which cannot be replaced: give more memory"
        )
    if model.config.tie_word_embeddings:
        tables = [tensors[name] for name in ("model.embed_tokens.weight", "lm_head.weight") if name in tensors]
        if len(tables) == 2 and not torch.equal(*tables):
            raise ValueError(f"{where} has two different tables of words, and the config sets tie_word_embeddings")
    for name, tensor in tensors.items():
        weights[name].copy_(tensor)


def merge(model: PreTrainedModel, adapter: Adapter, replaced: Iterable[str] = ()) -> PreTrainedModel:
    """Merge a LoRA into a model that is whole, its vision tower included.

    ``replaced`` has the names of weights that came from elsewhere, which ``modules_to_save`` may mean.

    Raises:
        ValueError: a weight of the adapter has no place in the model, lacks its other half, or is of another shape.
    """
    weights = model.state_dict()
    whole = plain_names(adapter.whole, weights, adapter.file)
    lora = _by_modules(adapter, weights)
    modules = {name for name, _, _ in lora}
    with naming(adapter.folder / SETTINGS):
        _check_targets(model, adapter.settings, modules, {*whole, *replaced})
    replace_weights(model, whole, adapter.file)
    from peft import LoraModel, get_peft_model_state_dict, set_peft_model_state_dict

    left_out = (*_REPLACED, *_OF_THE_FILE)
    fields = _lora_config().__dataclass_fields__
    options = {key: value for key, value in adapter.settings.items() if key in fields and key not in left_out}
    with naming(adapter.folder / SETTINGS):
        config = _lora_config()(**options | {"target_modules": sorted(modules), "inference_mode": True})
        wrapped = LoraModel(model, config, "default")
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # as peft does: W + B A is rounded once, whatever W's dtype
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    given = {_peft_name(expected, *key): tensor for key, tensor in lora.items()}
    _compare(given, expected, adapter.file)
    with naming(adapter.file):
        set_peft_model_state_dict(wrapped, given)
        return wrapped.merge_and_unload(safe_merge=True)  # which refuses what is not a number


def _by_modules(adapter: Adapter, weights: Mapping[str, Tensor]) -> dict[tuple[str, str, str], Tensor]:
    """Return the low-rank weights by the model's names of their modules."""
    named, foreign = {}, []
    for (module, part, tail), tensor in adapter.lora.items():
        plain = plain_name(f"{module}.weight", weights)
        if plain is None:
            foreign.append(f"{module}.{part}{tail}")
        else:
            named[plain.removesuffix(".weight"), part, tail] = tensor
    if foreign:
        raise ValueError(f"{adapter.file} holds weights for modules that the model does not have: {listed(foreign)}")
    return named


def _peft_name(expected: Mapping[str, Tensor], module: str, part: str, tail: str) -> str:
    """Return peft's name of a weight; old versions wrote a magnitude without ``.weight``."""
    name = f"{PREFIX}{module}.{part}{tail}"
    return f"{name}.weight" if name not in expected and f"{name}.weight" in expected else name


def _compare(given: dict[str, Tensor], expected: dict[str, Tensor], file: Path) -> None:
    if lacking := set(expected) - set(given):
        raise ValueError(f"{file} lacks weights that {SETTINGS} asks for: {listed(lacking)}")
    if unread := set(given) - set(expected):
        raise ValueError(f"{file} holds weights that {SETTINGS} does not ask for: {listed(unread)}")
    shapes = ((name, tensor.shape, expected[name].shape) for name, tensor in given.items())
    refuse_mismatched((each for each in shapes if each[1] != each[2]), file)


def _check_targets(model: PreTrainedModel, settings: dict[str, Any], modules: set[str], whole: set[str]) -> None:
    """Refuse kinds of modules that the settings name and the files have nothing for."""
    names = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))]
    targets = settings["target_modules"]
    if isinstance(targets, str) or settings.get("layers_to_transform") or settings.get("exclude_modules"):
        targets = []  # which modules they mean is not told by their names
    for target in targets:
        meant = [name for name in names if f".{name}".endswith(f".{target}")]
        if meant and not modules.intersection(meant):
            raise ValueError(f"target_modules has {target}, for which there are no weights")
        # LLaVA's training adapts the language model before there is a tower: its names of modules do not mean it.
        beside = [name for name in meant if name not in modules and ".vision_tower." not in name]
        if beside:
            logger.warning("the LoRA has no weights for %d modules %s: %s", len(beside), target, listed(beside))
    for target in settings.get("modules_to_save") or []:
        needed = [name for name, _ in model.named_parameters() if f".{target}." in f".{name}"]
        if not needed or (lacking := [name for name in needed if name not in whole]):
            raise ValueError(
                f"modules_to_save has {target}, for which weights are missing: {listed(lacking or needed)}"
            )
    tied = modules & {"lm_head", "model.embed_tokens"}
    if tied and model.config.tie_word_embeddings:
        raise ValueError(f"it changes {listed(tied)} alone, and the model's config sets tie_word_embeddings")
