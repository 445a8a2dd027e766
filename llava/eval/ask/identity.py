"""Who is who: files by what they hold, never by their names, their places or their times."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from llava.model.multimodal_encoder.builder import resolve_tower
from llava.records import InputError, local_path
from llava.selecting.references import FILE

END_BYTES = 2**20
KINDS = (".bin", ".jinja", ".json", ".model", ".safetensors", ".txt")
"""Suffixes of what decides how a checkpoint answers: weights, configs, tokenizers, templates."""
BYSTANDERS = ("training_args.bin", "trainer_state.json", "all_results.json", "train_results.json", "requirements.txt")
BYSTANDERS += (FILE,)  # what of it decides is a setting of the run

Files = dict[str, dict[str, str]]
"""Identities of the files of a run, by the part they play (``checkpoint``, ...) and their name in its folder."""


def of_file(path: str | Path) -> str:
    """A file's size in bytes and a hash of its first and last MiB.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(file.read(END_BYTES))
        if size > END_BYTES:
            file.seek(max(END_BYTES, size - END_BYTES))
            digest.update(file.read(END_BYTES))
    return f"{size} bytes, {digest.hexdigest()[:16]}"


def of_folder(folder: str | Path) -> dict[str, str]:
    """The identities of what a checkpoint's folder holds, file by file.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in KINDS and file.name not in BYSTANDERS)
    return {file.name: of_file(file) for file in files if file.is_file() and not file.name.startswith(".")}


def folder_of(checkpoint: str) -> Path | None:
    """Where a checkpoint lies, a folder or what the cache holds of a hub id; None if it is not here."""
    folder = local_path(checkpoint)
    if folder.is_dir():
        return folder
    try:
        cached = try_to_load_from_cache(checkpoint, "config.json")
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def of_run(**checkpoints: str | None) -> Files:
    """The files that the answers of a run depend on.

    Args:
        checkpoints: folders or hub ids by the part they play; None and what is not here yet are left out. The vision
            tower that the config of one names beside it counts as ``tower``.

    Raises:
        InputError: a file cannot be read.
    """
    found: Files = {}
    for part, checkpoint in checkpoints.items():
        folder = folder_of(checkpoint) if checkpoint else None
        if folder is None:
            continue
        try:
            found[part] = of_folder(folder)
            tower = _tower(folder)
            found |= {"tower": of_folder(tower)} if tower is not None and part == "checkpoint" else {}
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    return found


def _tower(folder: Path) -> Path | None:
    """The folder of the vision tower that a checkpoint's config names; None if it has none or that is not here."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        name = resolve_tower(config["mm_vision_tower"], str(folder))
    except (KeyError, OSError, TypeError, ValueError):  # the loader says what is wrong with it
        return None
    return folder_of(name)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the files of a part then and now, in words, five at most."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    said = [f"{name}: {json.dumps(before.get(name))}, now {json.dumps(now.get(name))}" for name in names[:5]]
    return [*said, f"and {len(names) - 5} more files"] if len(names) > 5 else said


def of_texts(texts: Iterable[str]) -> str:
    """A hash of texts in their order; half of a surrogate pair counts as its escape."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def digest(files: Mapping[str, str]) -> str:
    """One short name for all files of a part; the same wherever they lie."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:16]
