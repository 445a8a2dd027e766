"""A page in the browser that asks a picture, with two pruners side by side."""

import ipaddress
import logging
import os
import signal
import socket
import threading
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from llava import records
from llava.command import Number, Parser, at_least
from llava.flags.model import DTYPES
from llava.records import InputError

logger = logging.getLogger(__name__)

PORT = Number(int, 0, 65535)
ANSWER_TOKENS = Number(int, 1, 1024)


def build_parser() -> ArgumentParser:
    """The flags of ``llava web``. Neither Gradio nor torch is imported for them."""
    parser = Parser(prog="llava web", description=__doc__, allow_abbrev=False)
    source = parser.add_argument_group("what answers")
    either = source.add_mutually_exclusive_group()
    either.add_argument("--model", help="checkpoint folder or hub id; the embedded model if not given")
    either.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, which prunes as it was started")
    source.add_argument("--server-key-file", metavar="FILE", help="holds the key that the server asks for")
    source.add_argument("--base", help="the language model that a LoRA or projector --model belongs to")
    source.add_argument("--device", help="cuda, cuda:1, cpu, ...; a GPU, or else the CPU, if not given")
    source.add_argument("--dtype", choices=DTYPES, help="of the weights; float16 on a GPU, else float32, if not given")
    page = parser.add_argument_group("who reaches the page")
    page.add_argument("--host", default="127.0.0.1", help="address to listen on")
    page.add_argument("--port", type=PORT, default=7860, help="to listen on; 0 takes a free one")
    auth = page.add_mutually_exclusive_group()
    auth.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for these; nobody is asked if not given")
    auth.add_argument("--auth-file", metavar="FILE", help="holds USER:PASSWORD, one a line")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-new-tokens", type=ANSWER_TOKENS, default=128, help="longest answer, in tokens")
    limits.add_argument("--at-once", type=at_least(1), default=2, help="questions answered together")
    limits.add_argument("--queue", type=at_least(1), default=16, help="questions that may wait")
    return parser


def run_web(args: Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        InputError: a flag that does not fit, Gradio is not installed, or a checkpoint that cannot be loaded.
    """
    check_flags(args)
    logins = read_logins(args.auth, args.auth_file)
    key = read_lines("--server-key-file", args.server_key_file)[0].strip() if args.server_key_file else None
    port = free_port(args.host, args.port)
    warn_of_others(args.host, bool(logins))
    with TemporaryDirectory(prefix="llava-web-") as folder:
        # Of this run, and nobody else's to read; Gradio looks for the place when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from llava.web.serving import served
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise InputError("this needs Gradio: pip install '.[web]' in a clone of this project") from error
        with served(args, logins, port, Path(folder), key) as address:
            ended = threading.Event()
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda *_: ended.set())
            print(address, flush=True)
            ended.wait()


def check_flags(args: Namespace) -> None:
    """Refuse what cannot work before anything large is imported.

    Raises:
        InputError: an address that is none, or flags that do not go together.
    """
    if args.server is not None:
        address = urlsplit(args.server)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError(f"--server {args.server}: must be an address such as http://127.0.0.1:8000/v1")
        if given := [name for name in ("base", "device", "dtype") if getattr(args, name) is not None]:
            raise InputError(f"--{given[0]} is of a model in this process: it cannot be combined with --server")
    elif args.server_key_file is not None:
        raise InputError("--server-key-file needs --server")
    if args.model is not None and not args.model.strip():
        raise InputError("--model is empty: name a checkpoint, or leave the flag out for the embedded model")


def read_logins(auth: str | None, auth_file: str | None) -> list[tuple[str, str]]:
    """Who may see the page, as names and passwords; empty for everybody.

    Raises:
        InputError: a file that cannot be read or names nobody, or a line without a name or a password.
    """
    lines = [] if auth is None else [auth]
    if auth_file is not None:
        lines = read_lines("--auth-file", auth_file)
    logins = []
    for line in lines:
        user, colon, password = line.partition(":")
        if not (user.strip() and colon and password):
            raise InputError(f"{'--auth' if auth_file is None else f'--auth-file {auth_file}'}: must be USER:PASSWORD")
        logins.append((user.strip(), password))
    return logins


def read_lines(flag: str, path: str) -> list[str]:
    """The lines of a file that say something.

    Raises:
        InputError: it cannot be read, or has none.
    """
    try:
        found = records.read_lines(path)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error
    if not (lines := [line for line in found if line.strip()]):
        raise InputError(f"{flag} {path}: is empty")
    return lines


def is_local(host: str) -> bool:
    """Whether only this machine reaches a page that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def warn_of_others(host: str, asks: bool) -> None:
    """Say what it means to listen where others can reach the page."""
    if is_local(host):
        return
    if not asks:
        logger.warning(
            "--host %s: everybody who reaches this machine can use the page and the model; "
            "--auth-file FILE or --auth USER:PASSWORD asks for a password",
            host,
        )
    logger.warning(
        "--host %s: pictures, questions and passwords travel in the clear without a proxy that has TLS", host
    )


def free_port(host: str, port: int) -> int:
    """The port to listen on, found out before a model is loaded; for 0 one that is free.

    Raises:
        InputError: the host is none of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from error
