"""What produced a result: versions, commit, machine."""

import datetime
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import llava

PACKAGE = Path(llava.__file__).resolve().parent


def versions() -> dict[str, str]:
    """Versions of what decides the numbers: Python, torch, transformers and this package."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "llava": llava.__version__,
    }


def commit() -> str | None:
    """``git describe`` of the checkout the package runs from, None where it does not run from one."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--tags"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_name() -> str:
    """The processor's own name where Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment() -> dict[str, object]:
    """Versions, commit, processor, accelerator, threads and time (UTC), for the head of a results file."""
    return {
        "versions": versions(),
        "commit": commit(),
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
