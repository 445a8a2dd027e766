"""Locks on files of answers, where the system has them."""

import logging
from pathlib import Path
from typing import IO

from llava.records import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)


def check_locks() -> None:
    """Raise InputError where the system has no locks by which runs keep away from each other's answers."""
    if fcntl is None:
        raise InputError("a run locks its answers file with fcntl, which Python has on Linux, macOS and WSL alone")


def lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes away until this one closes the file or dies.

    A record lock is not inherited, so worker processes that outlive a killed run for seconds do not hold it.
    """
    check_locks()
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise InputError(f"{path}: another process is writing here") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that only one run writes it", path, error.strerror)
