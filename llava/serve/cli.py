"""Talk with a LLaVA model about an image, in the terminal. An empty line ends the conversation, /help says more."""

import argparse
import logging
from typing import Any

from llava.asking.batch import generation_options
from llava.asking.chat import Chat, without_marks
from llava.asking.images import load_image
from llava.asking.load import check_options, choose_conv_mode, choose_pruner, load_model
from llava.asking.losses import warn_of_losses
from llava.asking.prompts import typed
from llava.command import run_program
from llava.records import InputError
from llava.serve.commands import command
from llava.serve.parser import chat_parser

logger = logging.getLogger(__name__)


def read_query(name: str) -> str:
    """The user's next line that asks something; at the end of the input, or when interrupted, an empty one."""
    while True:
        try:
            line = typed(input(f"{name}: ")).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return ""
        if "\ufffd" in line:
            logger.warning("a part of this line is not UTF-8: what cannot be read stands as \ufffd")
        if not line or without_marks(line).strip():
            return line
        logger.warning("the mark of an image alone asks nothing")


def talk(args: argparse.Namespace) -> None:
    """Answer the lines of the input about ``args.image_file`` until an empty one.

    Raises:
        InputError: an unreadable image, an unknown template or pruner option, before the model loads.
    """
    pruner = choose_pruner(args)
    check_options(args, pruner)
    args.conv_mode = choose_conv_mode(args)
    image = load_image(args.image_file)
    decoding = {"temperature": args.temperature, "max_new_tokens": args.max_new_tokens}
    generation_options(**decoding)
    converse(load_model(args, pruner).chat(image), args.debug, **decoding)


def converse(chat: Chat, debug: bool = False, **generation: Any) -> None:
    """Answer the lines of the input until an empty one, and do what those say that begin with a slash.

    What cannot be done, or asked, is said, and the conversation goes on.

    Args:
        chat: of ``Model.chat``, with a model of either format.
        debug: log prompt and number of tokens at every turn.
        generation: what ``generation_options`` takes.
    """
    user, assistant = chat.history.names
    while line := read_query(user):
        try:
            if line.startswith("/"):
                print(command(chat, line))
            else:
                _answer(chat, line, assistant, debug, generation)
        except InputError as error:
            logger.warning("%s", error)


def _answer(chat: Chat, question: str, name: str, debug: bool, generation: dict[str, Any]) -> None:
    print(f"{name}: ", end="", flush=True)
    try:
        answer = chat.ask(question, show=lambda piece: print(piece, end="", flush=True), **generation)
    finally:
        print()
    warn_of_losses([answer])
    if debug:
        tokens = f"{answer.visual_tokens} of {answer.tokens_before} visual tokens"
        logger.info("%s", {"prompt": chat.history.text(), "outputs": answer.text, "kept": tokens})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return chat_parser()


if __name__ == "__main__":
    run_program(build_parser(), talk)
