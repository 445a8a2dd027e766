"""Turn a LLaVA checkpoint into one of Transformers' own LlavaForConditionalGeneration or LlavaNext, or back.

python scripts/convert_llava_to_hf.py --model-path checkpoints/llava-v1.5-7b --output-path checkpoints/llava-v1.5-7b-hf

``llava convert`` is the same program.
"""

from argparse import ArgumentParser

from llava.command import run_program
from llava.convert.parser import convert_parser
from llava.convert.program import convert


def build_parser() -> ArgumentParser:
    """The command line."""
    return convert_parser()


if __name__ == "__main__":
    run_program(build_parser(), convert)
