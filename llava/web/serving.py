"""The page as a running server."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

import llava
from llava.command import reason
from llava.records import InputError
from llava.web.examples import draw_examples
from llava.web.guard import Guard
from llava.web.local import Local
from llava.web.page import STYLE, build_page
from llava.web.remote import Remote
from llava.web.uploads import LARGEST_FILE
from llava.web.visits import Visits

FONT = ("system-ui", "sans-serif")
MONOSPACED = ("ui-monospace", "monospace")
EMBEDDED = "It knows drawn shapes alone, such as those of the examples: of a photo it says nothing that means anything."


@contextmanager
def served(
    args: Namespace, logins: Sequence[tuple[str, str]], port: int, folder: Path, key: str | None = None
) -> Iterator[str]:
    """Load the model, start the server, and stop it in the end; gives the address.

    Args:
        args: of ``llava web``, checked.
        logins: names and passwords of those who may see the page; everybody may if there are none.
        port: a free one.
        folder: where Gradio keeps uploads; of this run alone.
        key: of the server behind the page.

    Raises:
        InputError: a checkpoint that cannot be loaded, or a server that does not answer.
    """
    engine = engine_of(args, key)
    folder = folder.resolve()
    examples = draw_examples(folder / "scenes")
    if isinstance(engine, Local):
        engine.warm(Image.open(examples[0][0]).convert("RGB"))
    page = build_page(engine, Visits(folder, folder / "scenes"), examples, args.at_once)
    page.queue(max_size=args.queue, default_concurrency_limit=args.at_once, api_open=False)
    page.launch(server_name=args.host, server_port=port, auth=list(logins) or None, **launching(folder))
    try:
        yield address_of(args.host, port)
    finally:
        page.close(verbose=False)


def launching(folder: Path) -> dict[str, Any]:
    """How Gradio serves a page whose uploads lie in ``folder``: nothing of it leaves this machine, nothing is offered
    that the page does not use, and the program goes on."""
    return {
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "inbrowser": False,
        "show_error": False,
        "max_file_size": LARGEST_FILE,
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "footer_links": [],
        "css_paths": STYLE,
        "theme": gr.themes.Default(font=FONT, font_mono=MONOSPACED),
        "app_kwargs": {"middleware": [Middleware(Guard, folder=folder)], "docs_url": None, "redoc_url": None},
    }


def engine_of(args: Namespace, key: str | None) -> Local | Remote:
    """What answers: the server, or a model that is loaded here.

    Raises:
        InputError: it cannot be had.
    """
    if args.server is not None:
        return Remote(args.server, key, args.max_new_tokens, args.at_once)
    try:
        model = llava.load(args.model, base=args.base, device=args.device, dtype=args.dtype)
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {args.model or 'the embedded model'}: {reason(error)}") from error
    return Local(model, args.max_new_tokens, args.at_once, EMBEDDED if args.model is None else "")


def address_of(host: str, port: int) -> str:
    """Where a browser on this machine finds the page."""
    if host in ("0.0.0.0", "::", "localhost"):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
