"""Talk with a LLaVA model about an image, in the terminal. An empty line ends the conversation."""

import argparse
import logging

from llava.asking.batch import generation_options
from llava.asking.images import load_image
from llava.asking.load import check_options, choose_conv_mode, choose_pruner, load_model
from llava.asking.prompts import typed
from llava.command import run_program
from llava.conversation import Conversation
from llava.serve.chat import Chat, without_marks
from llava.serve.parser import chat_parser

logger = logging.getLogger(__name__)


def names(conversation: Conversation) -> tuple[str, str]:
    """What the two sides are called on the screen: the template's roles without their marks."""
    user, assistant = (role.removeprefix("<|im_start|>").strip() for role in conversation.roles)
    return user or "user", assistant or "assistant"


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
    conv_mode = choose_conv_mode(args)
    image = load_image(args.image_file)
    generation = generation_options(args.temperature, max_new_tokens=args.max_new_tokens)
    chat = Chat(load_model(args, pruner), image, conv_mode)
    user, assistant = names(chat.conversation)
    while query := read_query(user):
        print(f"{assistant}: ", end="", flush=True)
        answer = chat.ask(query, show=lambda piece: print(piece, end="", flush=True), **generation)
        print()
        if args.debug:
            tokens = f"{answer.visual_tokens} of {answer.tokens_before} visual tokens"
            logger.info("%s", {"prompt": chat.conversation.get_prompt(), "outputs": answer.text, "kept": tokens})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return chat_parser()


if __name__ == "__main__":
    run_program(build_parser(), talk)
