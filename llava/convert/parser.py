"""The command line that converts a checkpoint: read, and its help printed, before torch is imported."""

import re
from argparse import ArgumentParser, ArgumentTypeError

from llava.command import Parser

CONV_MODES = ("vicuna_v1", "mistral_instruct", "chatml_direct")
"""Templates that Transformers' chat templates are written from."""


def convert_parser(prog: str | None = None) -> ArgumentParser:
    """The command line; ``prog`` is what the program is called, the script's name if not given."""
    doc = "Turn a LLaVA checkpoint into one of Transformers' own LlavaForConditionalGeneration or LlavaNext, or back."
    parser = Parser(prog=prog, description=doc)
    path = "folder or hub id of the checkpoint to convert"
    parser.add_argument("--model-path", "--model", metavar="PATH", required=True, help=path)
    parser.add_argument("--output-path", metavar="FOLDER", required=True, help="folder to create")
    parser.add_argument("--to", choices=["hf", "llava"], default="hf", help="the format to write")
    tower = "folder or hub id of CLIP; the one that the config names if not given"
    parser.add_argument("--vision-tower", metavar="PATH", help=tower)
    parser.add_argument("--conv-mode", choices=CONV_MODES, help="chat template; by language model if not given")
    parser.add_argument("--max-shard-size", type=shard_size, default="5GB", help="largest file of weights")
    return parser


def shard_size(text: str) -> str:
    """An argparse type: a size above 0 in KB, MB, GB or TB."""
    if not re.fullmatch(r"0*([1-9]\d*(\.\d+)?|0?\.\d*[1-9]\d*)\s*[KMGT]B", text, re.IGNORECASE):
        raise ArgumentTypeError(f"{text!r} is not a size above 0 in KB, MB, GB or TB, such as 5GB")
    return text
