"""What lies in a checkpoint folder, and whether it is whole; read before anything is loaded."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def checkpoint_folder(path: str) -> Path:
    """Return the local folder of a checkpoint: ``path`` itself, or a download if it is a hub id.

    Raises:
        FileNotFoundError: it is neither here nor to be had from the hub.
    """
    refuse_no_checkpoint(path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(path))
    except OSError as error:
        raise FileNotFoundError(
            f"checkpoint {path!r}: no such folder, and the hub does not give it: {error}"
        ) from error


def refuse_no_checkpoint(path: str) -> None:
    """Raise FileNotFoundError for what is neither a folder nor of a hub id's form."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise FileNotFoundError(f"checkpoint {path!r}: no such folder, and not a hub id of the form owner/name")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {folder} is not a checkpoint")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights; each exists and is whole."""
    for name in _INDEX_FILES:
        index = folder / name
        if index.is_file():
            files = [folder / shard for shard in _shards(index)]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise FileNotFoundError(f"{index} lists shards that are not there: {', '.join(missing)}")
            break
    else:
        files = [folder / name for name in _SINGLE_FILES if (folder / name).is_file()][:1]
    if not files:
        raise FileNotFoundError(f"{folder} holds no weights: none of {', '.join(_INDEX_FILES + _SINGLE_FILES)}")
    for file in files:
        _check_whole(file)
    return files


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error!r}): copy or download it again") from error


def refuse_missing(missing: set[str], where: str | Path) -> None:
    """Raise if weights are missing: transformers would go on with random numbers in their place."""
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{where} lacks weights: {', '.join(names[:5])}{more}; loading would leave them random")


def weight_names(folder: Path) -> set[str]:
    """Return the names of a checkpoint's tensors, without reading the tensors."""
    names: set[str] = set()
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                names |= set(tensors.keys())
        else:
            names |= set(_read_bin(file, "meta"))
    return names


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
    """Read a ``.bin`` file of tensors, such as ``mm_projector.bin``."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    return _read_bin(file, "cpu")


def _read_bin(file: Path, device: str, mmap: bool = False) -> dict[str, Tensor]:
    try:
        return torch.load(file, map_location=device, weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(_damaged(file, error)) from error


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
    return f"{file} is damaged or cut short ({error}): copy or download it again"
