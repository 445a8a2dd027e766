"""The command lines of single questions and of a conversation: read before torch is imported."""

from argparse import ArgumentParser, Namespace

from llava.command import Parser
from llava.flags.model import DECODING, add_generation_args, add_model_args
from llava.flags.pruning import HOSTED, NATIVE
from llava.records import InputError, local_path

ASK = """Ask a model about a picture, one question after the other. Answers are printed as they come; how many visual
tokens the model read, and in how many milliseconds it answered, is told beside them, on the standard error."""
DOC = """Talk with a LLaVA model about an image, in the terminal. An empty line ends the conversation, /help says how to
switch the pruner within it."""


def chat_parser(prog: str = "python -m llava.serve.cli", image_flag: bool = True) -> ArgumentParser:
    """LLaVA's flags, then those of the model and the pruners.

    Args:
        prog: what the program is called.
        image_flag: the image has a flag, as in LLaVA; else it is the first word, and models are of either format.
    """
    parser = Parser(prog=prog, description=DOC, allow_abbrev=False)
    if image_flag:
        parser.add_argument("--image-file", required=True, help="a file or an http(s) address")
    else:
        parser.add_argument("image_file", metavar="IMAGE", help="a file or an http(s) address")
    parser.add_argument("--conv-mode", help="conversation template; follows the model's name if not given")
    parser.add_argument("--temperature", type=DECODING["temperature"], default=0.2, help="0 is greedy")
    longest = "tokens that an answer has at most"
    parser.add_argument("--max-new-tokens", type=DECODING["max_new_tokens"], default=512, help=longest)
    parser.add_argument("--debug", action="store_true", help="show the prompt and the number of tokens at every turn")
    add_model_args(parser, *([NATIVE] if image_flag else [NATIVE, HOSTED]))
    _add_bits(parser)
    return parser


def talk_parser() -> ArgumentParser:
    """The same with the image as its first word."""
    return chat_parser("llava chat", image_flag=False)


def ask_parser(prog: str = "llava ask") -> ArgumentParser:
    """What to ask about which picture, then the flags of the model and the pruners, of either format."""
    parser = Parser(prog=prog, description=ASK, allow_abbrev=False)
    parser.add_argument("image", metavar="IMAGE", help="a file or an http(s) address; a video for models that read one")
    parser.add_argument("questions", metavar="QUESTION", nargs="+", help="in quotes; each is asked by itself")
    lines = "print one line of JSON for each question instead, with all that is known of its answer"
    parser.add_argument("--json", action="store_true", help=lines)
    parser.add_argument("--conv-mode", help="conversation template; follows the model's name if not given")
    add_generation_args(parser, max_new_tokens=512, temperature=0.0)
    add_model_args(parser, NATIVE, HOSTED)
    _add_bits(parser)
    return parser


def refuse_missing(args: Namespace) -> None:
    """Raise InputError for a picture or a checkpoint that is not there, which takes no torch to tell."""
    shown = args.image if "image" in args else args.image_file
    if not shown.startswith(("http://", "https://")) and not local_path(shown).exists():
        raise InputError(f"cannot read {shown}: no such file")
    path = args.model_path
    if path and path.count("/") != 1 and not local_path(path).is_dir():
        raise InputError(f"cannot load {path}: no such folder, and not a hub id of the form owner/name")


def _add_bits(parser: ArgumentParser) -> None:
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument("--load-8bit", action="store_true", help="weights in 8 bits; needs the extra quant")
    bits.add_argument("--load-4bit", action="store_true", help="weights in 4 bits; needs the extra quant")
