"""Which checkpoint answers, where and how it runs, and how answers are decoded."""

from argparse import ArgumentParser
from typing import Any

from llava.command import SHARE, Number, at_least
from llava.flags.pruning import NATIVE, add_pruning_args

DTYPES = ("float32", "float16", "bfloat16")
ANYRES = ("native", "fixed")
ATTENTION = ("sdpa", "eager", "flash_attention_2")
DECODING: dict[str, Number] = {
    "temperature": Number(float, 0),
    "top_p": SHARE,
    "top_k": at_least(0),
    "num_beams": at_least(1),
    "max_new_tokens": at_least(1),
    "min_new_tokens": at_least(0),
    "no_repeat_ngram_size": at_least(0),
    "repetition_penalty": Number(float, 0, above=True),
    "length_penalty": Number(float, float("-inf")),
}
"""The settings of decoding that have bounds."""


def add_model_args(parser: ArgumentParser, *hosts: str) -> None:
    """Which checkpoint, where and how it runs, and the pruner with its options.

    Args:
        hosts: whose models a checkpoint may be of; LLaVA's own classes if none is named.
    """
    path = "checkpoint folder or hub id; the embedded shapes model if not given"
    parser.add_argument("--model-path", "--model", metavar="PATH", help=path)
    parser.add_argument("--model-base", metavar="PATH", help="language model of a LoRA or a projector by itself")
    group = add_running_args(parser, dtype="float16 on a GPU, else float32, if not given")
    group.add_argument("--anyres", choices=ANYRES, default="native", help="tiles of a LLaVA-NeXT model")
    group.add_argument("--vision_dtype", choices=DTYPES, help="of the vision tower; as --dtype if not given")
    graphs = "capture image side, prefill and decoding in CUDA graphs; with one GPU"
    group.add_argument("--cuda-graphs", action="store_true", default=None, help=graphs)
    add_pruning_args(parser, *(hosts or [NATIVE]))


def add_running_args(parser: ArgumentParser, dtype: str) -> Any:
    """Where and how a model of either format runs; ``dtype`` says what it is if not given.

    Returns:
        The group, for the flags that models of one format have.
    """
    group = parser.add_argument_group("model")
    group.add_argument("--device", help="cuda, cuda:1, cpu, ...; GPUs, or else the CPU, if not given")
    group.add_argument("--dtype", choices=DTYPES, help=f"of the weights; {dtype}")
    attention = "implementation of attention; sdpa if not given"
    group.add_argument("--attn", dest="attn_implementation", choices=ATTENTION, help=attention)
    return group


def add_generation_args(parser: ArgumentParser, max_new_tokens: int, temperature: float = 0.2) -> None:
    """LLaVA's decoding flags; a temperature of 0 is greedy."""
    parser.add_argument("--temperature", type=DECODING["temperature"], default=temperature, help="0 is greedy")
    nucleus = "when sampling, the likeliest tokens that make up this share alone; all if not given"
    parser.add_argument("--top_p", type=DECODING["top_p"], metavar="P", help=nucleus)
    parser.add_argument("--num_beams", type=DECODING["num_beams"], default=1, help="beams of beam search; 1 is none")
    longest = "tokens that an answer has at most"
    parser.add_argument("--max_new_tokens", type=DECODING["max_new_tokens"], default=max_new_tokens, help=longest)
