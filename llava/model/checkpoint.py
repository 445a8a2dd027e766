"""What lies in a checkpoint folder, and whether it is whole; read before anything is loaded."""

import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from llava import compat

# In the order in which Transformers looks for them: what is checked here is what it reads.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PARTS = (
    *("model.layers.", "model.norm.", "model.embed_tokens.", "lm_head."),
    *("model.mm_projector.", "model.vision_tower."),
)
_COMPUTED = re.compile(r"\.(?:rotary_emb\.inv_freq|position_ids)$")


def checkpoint_folder(path: str) -> Path:
    """Return the local folder of a checkpoint: ``path`` itself, or a download if it is a hub id.

    Raises:
        FileNotFoundError: it is neither here nor to be had from the hub.
    """
    refuse_no_checkpoint(path)
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    with compat.from_hub(path):
        return Path(snapshot_download(path))


def refuse_no_checkpoint(path: str) -> None:
    """Raise FileNotFoundError for what is neither a folder nor of a hub id's form."""
    if not Path(os.path.expanduser(path)).is_dir() and not compat.is_hub_id(path):
        raise FileNotFoundError(f"checkpoint {path!r}: no such folder, and not a hub id of the form owner/name")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {folder} is not a checkpoint")
    return read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything else; names the file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object, but {type(content).__name__}")
    return content


@contextmanager
def naming(what: str | Path) -> Iterator[None]:
    """Turn what libraries raise about a user's files into a ValueError that names ``what``.

    Missing extras (ImportError) and memory that runs out stay what they are; FileNotFoundError keeps its type.
    """
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers, safetensors and strict dataclasses raise types of their own
        known = isinstance(error, (OSError, ValueError))
        text = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())  # in one line
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(text if str(what) in text else f"{what}: {text}") from error


def has_weights(folder: Path) -> bool:
    """Whether a folder has files of a whole model's weights, whatever is in them."""
    return any((folder / name).is_file() for name in _WEIGHTS)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights; each exists and is whole."""
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{folder} holds no weights: none of {', '.join(_WEIGHTS)}")
    files = [found]
    if found.suffix == ".json":
        files = [folder / shard for shard in _shards(found)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{found} lists shards that are not there: {', '.join(missing)}")
    for file in files:
        _check_whole(file)
    return files


def _shards(index: Path) -> list[str]:
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        if not shards or not all(shard == Path(shard).name for shard in shards):
            raise ValueError(f"its weight_map names {shards}")
        return shards
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error!r}): copy or download it again") from error


def refuse_missing(missing: set[str], where: str | Path) -> None:
    """Raise if weights are missing: transformers would go on with random numbers in their place."""
    if missing:
        raise ValueError(f"{where} lacks weights: {listed(missing)}; loading would leave them random")


def refuse_beyond(names: Iterable[str], where: str | Path) -> None:
    """Raise if weights of known parts are more than the model has: its config describes a smaller one."""
    if beyond := [name for name in names if name.startswith(_PARTS)]:
        raise ValueError(f"{where} holds weights that its config leaves no place for: {listed(beyond)}")


def refuse_mismatched(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], where: str | Path) -> None:
    """Raise if weights have other shapes than the model that the config describes: (name, shape, the model's)."""
    if differing := [f"{name} is {tuple(given)}, not {tuple(asked)}" for name, given, asked in mismatched]:
        raise ValueError(f"{where} does not fit its config: {listed(differing)}")


def listed(names: Iterable[str]) -> str:
    """Name the first five, and say how many more there are."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def is_computed(name: str) -> bool:
    """Whether a stored tensor follows from the config; old versions of Transformers saved such tensors."""
    return _COMPUTED.search(name) is not None


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's tensors by name, without reading the tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _read_bin(file, "meta").items()}
    return shapes


def mapped_tensors(folder: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors, each read from its file only where it is used: they take no memory of their own.

    Pickled ``.bin`` files from before PyTorch 1.6 cannot be read piecemeal and are loaded.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as stored:
                tensors |= {name: stored.get_tensor(name) for name in stored.keys()}
        else:
            stored = _read_bin(file, "cpu", mmap=zipfile.is_zipfile(file))
            tensors |= {name: tensor.detach() for name, tensor in stored.items()}
    return tensors


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a file of weights, such as ``mm_projector.bin`` or ``adapter_model.safetensors``."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    if file.suffix == ".safetensors":
        _check_whole(file)
        tensors = load_file(file)
    else:
        tensors = _read_bin(file, "cpu")
    if quantised := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise ValueError(f"{file} holds whole numbers, as of a quantised model, in {listed(quantised)}")
    return tensors


def _read_bin(file: Path, device: str, mmap: bool = False) -> dict[str, Tensor]:
    try:
        tensors = torch.load(file, map_location=device, weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except Exception as error:  # what unpickling damaged bytes comes to is anything
        raise ValueError(_damaged(file, error)) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{file} holds something else than tensors by name")
    return tensors


def _check_whole(file: Path) -> None:
    """Raise if a file was cut short; ``.bin`` files are found out when they are read."""
    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(file, error)) from error


def _damaged(file: Path, error: Exception) -> str:
    with file.open("rb") as content:
        if content.read(40).startswith(b"version https://git-lfs"):
            return f"{file} is damaged: git-lfs left its pointer in place of the file; run `git lfs pull`"
    return f"{file} is damaged or cut short ({error}): copy or download it again"
