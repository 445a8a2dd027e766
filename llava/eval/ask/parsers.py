"""The command lines of the programs that ask: read, and their help printed, before torch is imported."""

import os
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from llava.command import SEED, Parser, at_least
from llava.eval.ask.specs import read_specs
from llava.eval.tasks.base import SHORT, Task
from llava.eval.tasks.mmbench import LETTER_REQUEST
from llava.eval.tasks.qbench import CHOOSE, QUALITY
from llava.flags.model import ANYRES, DTYPES, add_generation_args, add_model_args, add_running_args
from llava.flags.pruning import HOSTED, LEAST, add_pruning_args

ENGINES = ("vllm",)
PRUNED = "random,uniform,cdpruner,divprune,vispruner,mfpruner"
"""What the demo compares."""
SWEEP_USAGE = """%(prog)s TASK VERSION --pruners A,B [--budgets 64,128] [OPTION...]
  --pruners        names, none among them for plain LLaVA; all for every one there is, but all,-trim for others than
                   trim. Options follow a name after colons: cdpruner:theta=0.5, random:seed=1, fastv:prune_layer=2
  --budgets        visual tokens kept per tile, or shares of them, such as 0.25
  OPTION           as of python -m llava.eval run TASK VERSION, e.g. --limit 100, --batch_size 8
  --dry-run        print the runs that it stands for
places are named by environment, as for a run
"""
LETTER = "ask for the option's letter alone"


def script_parser(task: Task, script: str, usage: str) -> Parser:
    """The words of a benchmark's script that are its own; all others are those of the program that asks."""
    parser = Parser(script, usage, add_help=False, allow_abbrev=False)
    parser.add_argument("--split", choices=list(task.splits), default=task.usual_split)
    parser.add_argument("--launcher", default="")
    parser.add_argument("--data-parallel-size", type=at_least(1))
    return parser


def add_loop_args(parser: ArgumentParser, media: str = "image") -> None:
    """Which questions are asked of which images or videos, where the answers go, and how the loop runs."""
    where = f"what the {media}s of the questions are relative to; the working directory if not given"
    parser.add_argument(f"--{media}-folder", dest="image_folder", metavar="FOLDER", default="", help=where)
    parser.add_argument("--answers-file", default="answer.jsonl", help="completed if a run was cut short")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="ask the first N questions alone")
    parser.add_argument("--num-chunks", type=at_least(1), default=1, help="parts that the questions are cut into")
    parser.add_argument("--chunk-idx", type=at_least(0), default=0, help="the part to ask, from 0")
    group = parser.add_argument_group("loop")
    group.add_argument("--overwrite", action="store_true", help="drop the answers there are")
    group.add_argument("--batch_size", type=at_least(1), default=1, help="float32 answers do not depend on it")
    workers = min(4, os.cpu_count() or 1)
    group.add_argument("--num_workers", type=at_least(0), default=workers, help=f"processes that decode {media}s")
    group.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="at one that is unreadable")
    group.add_argument("--save-latency", action="store_true", help="write ANSWERS_latency.json beside the answers")
    static = "a key-value cache of fixed size, with which a GPU's decoding is compiled"
    group.add_argument("--static-cache", action="store_true", default=None, help=static)
    group.add_argument("--profile", action="store_true", help="record what each stage takes, the first batch aside")


def add_engine_args(parser: ArgumentParser) -> None:
    """Which engine answers, and how it is started."""
    group = parser.add_argument_group("engine")
    group.add_argument("--engine", choices=ENGINES, help="answers in place of LLaVA's own classes; see docs/serving.md")
    group.add_argument("--tensor-parallel-size", type=at_least(1), help="GPUs that share one model in vLLM")
    crop = "take a checkpoint of vLLM's whose processor crops pictures where LLaVA pads them"
    group.add_argument("--allow-crop", action="store_true", default=None, help=crop)


def question_parser(
    module: str,
    doc: str | None,
    questions: tuple[str, str] = ("--question-file", "tables/question.jsonl"),
    conv_mode: str = "llava_v1",
    **generation: Any,
) -> ArgumentParser:
    """LLaVA's flags, then those of the loop, the model and the pruners.

    Args:
        questions: the flag that names the question file, and its default.
        conv_mode: the template of the program.
        generation: defaults, for ``add_generation_args``.
    """
    parser = Parser(prog=f"python -m llava.eval.{module}", description=doc, allow_abbrev=False)
    flag, question_file = questions
    parser.add_argument(flag, default=question_file, metavar="FILE", help="the questions")
    add_loop_args(parser)
    parser.add_argument("--conv-mode", help=f"{conv_mode} if not given, vicuna_v1 for the embedded model")
    add_generation_args(parser, **{"max_new_tokens": 1024} | generation)
    add_model_args(parser)
    add_engine_args(parser)
    return parser


def _mmbench(door: str, doc: str | None) -> ArgumentParser:
    parser = question_parser(door, doc)
    parser.add_argument("--single-pred-prompt", action="store_true", help=LETTER)
    parser.add_argument("--all-rounds", action="store_true", help="ask once per rotation of the options")
    parser.add_argument("--lang", choices=list(LETTER_REQUEST), default="en", help="of --single-pred-prompt")
    return parser


def _qbench(door: str, doc: str | None) -> ArgumentParser:
    parser = question_parser(door, doc, ("--questions-file", "llvisionqa_dev.json"), **QUALITY.generation)
    parser.add_argument("--lang", choices=list(CHOOSE), default="en", help="of the line that says to choose")
    return parser


def _science(door: str, doc: str | None) -> ArgumentParser:
    parser = question_parser(door, doc, ("--question-file", "tables/question.json"), "llava_v0")
    parser.add_argument("--single-pred-prompt", action="store_true", help=LETTER)
    parser.add_argument("--answer-prompter", action="store_true", help="taken from LLaVA's scripts, without effect")
    return parser


def _loader(door: str, doc: str | None) -> ArgumentParser:
    return question_parser(door, doc, **SHORT.generation)


DOORS: dict[str, Callable[[str, str | None], ArgumentParser]] = {
    "model_vqa": question_parser,
    "model_vqa_loader": _loader,
    "model_vqa_mmbench": _mmbench,
    "model_vqa_qbench": _qbench,
    "model_vqa_science": _science,
}


def door_parser(door: str, doc: str | None = None) -> ArgumentParser:
    """The command line of a program that asks a benchmark's questions, by its name below ``llava.eval``."""
    return DOORS[door](door, doc)


def video_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval video``."""
    doc = """Ask one of Transformers' own vision-language models the questions of a JSONL file about videos. Question
    lines hold question_id, video (relative to --video-folder) and text; answer lines hold question_id, prompt, text,
    answer_id, model_id and metadata. Every class that llava.pruning.prune supports and that reads videos will do, such
    as LLaVA-NeXT-Video and Qwen2.5-VL; without a pruner, every class that answers to Transformers' chat templates."""
    parser = Parser(prog="python -m llava.eval video", description=doc, allow_abbrev=False)
    path = "folder or hub id of a checkpoint in Transformers' format"
    parser.add_argument("--model-path", "--model", metavar="PATH", help=path)
    parser.add_argument("--question-file", default="tables/question.jsonl", metavar="FILE", help="the questions")
    add_loop_args(parser, media="video")
    parser.add_argument("--for_get_frames_num", type=at_least(1), default=32, help="frames read of each video")
    add_generation_args(parser, max_new_tokens=128, temperature=0.0)
    add_running_args(parser, dtype="the checkpoint's own on a GPU, else float32, if not given")
    add_pruning_args(parser, HOSTED)
    return parser


def calibrate_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval calibrate``."""
    doc = """Measure what --budget spectral refers to: the effective rank of images that keep the wanted number of
    tokens. Every image is shown to the checkpoint once. Prints, for each number of tokens per tile, the --erank_ref
    with which the images keep it on average, and with --store writes it beside the checkpoint, where loading finds
    it."""
    parser = Parser(prog="python -m llava.eval calibrate", description=doc, allow_abbrev=False)
    path = "checkpoint folder or hub id, of either format; the embedded one if not given"
    parser.add_argument("--model-path", "--model", metavar="PATH", help=path)
    parser.add_argument(
        "--image-folder", metavar="FOLDER", help="of the images; what a question file names is relative to it"
    )
    parser.add_argument("--question-file", help="its images are measured, each once; else all in the folder")
    parser.add_argument(
        "--visual_token_num", type=at_least(LEAST), nargs="+", required=True, metavar="T", help="wanted mean per tile"
    )
    parser.add_argument("--num-images", type=at_least(1), metavar="N", help="the first N alone")
    parser.add_argument("--store", action="store_true", help="write what is found beside the checkpoint")
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="images at once; 8 if not given")
    parser.add_argument("--anyres", choices=ANYRES, default="native", help="tiles of a LLaVA-NeXT model")
    add_running_args(parser, dtype="float16 on a GPU, else float32, if not given")
    return parser


def demo_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval demo``."""
    doc = """Pruners on the embedded model: one table, one results file, two pictures. Draws the shapes benchmark,
    answers it without pruning and with each pruner at a quarter, an eighth and a sixteenth of the visual tokens, and
    writes shapes_results.json, shapes_accuracy.png and shapes_selection.png."""
    parser = Parser(prog="python -m llava.eval demo", description=doc)
    parser.add_argument("--output-dir", default="results", help="of the results file and the pictures")
    parser.add_argument("--num-questions", type=at_least(2), default=500, help="how many are drawn; 500 if not given")
    parser.add_argument("--seed", type=SEED, default=0, help="of the questions")
    parser.add_argument("--random-seeds", type=at_least(1), default=3, help="runs of pruner random that are averaged")
    parser.add_argument("--batch_size", type=at_least(1), default=32, help="questions at once; 32 if not given")
    several = "to compare, as of python -m llava.eval sweep; all for every one"
    parser.add_argument("--pruners", default=PRUNED, metavar="A,B", help=several)
    path = "another checkpoint trained on shapes; the embedded one if not given"
    parser.add_argument("--model-path", "--model", metavar="PATH", help=path)
    parser.add_argument("--device", help="a GPU if there is one, else the CPU, if not given")
    dtype = "of the weights; float16 on a GPU, else float32, if not given"
    parser.add_argument("--dtype", choices=DTYPES, help=dtype)
    positions = {"nargs": "+", "choices": ["compact", "original"], "default": ["compact"]}
    parser.add_argument("--positions", help="of kept tokens, one or both; compact if not given", **positions)
    return parser


def refuse_pruners(args: Namespace) -> None:
    """Raise InputError for pruners of ``demo_parser`` that are none."""
    read_specs(args.pruners, embedded=True)


def run_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval run``."""
    doc = """From the words of an evaluation script to a score: look at the data, ask, merge, and score or say where to
    submit. The questions are asked by processes of their own, one for each device that CUDA_VISIBLE_DEVICES names."""
    parser = Parser(prog="python -m llava.eval run", description=doc)
    words = "as of scripts/VERSION/eval/TASK.sh, which TASK VERSION --help describes, as in gqa v1_5 --help"
    parser.add_argument("words", nargs=REMAINDER, metavar="TASK VERSION TOKENS [OPTION...]", help=words)
    return parser


def sweep_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval sweep``."""
    doc = """Several pruners at several budgets on one benchmark: one process, one model, one table. Each image is read
    once for all of them. Files, records and scores are those of a run for each, so that a sweep goes on with the
    answers of runs, and runs with those of a sweep. It is one process whatever CUDA_VISIBLE_DEVICES names, whose
    devices share a model that is too large for one."""
    parser = Parser("python -m llava.eval sweep", SWEEP_USAGE, doc)
    words = "as above"
    parser.add_argument("words", nargs=REMAINDER, metavar="TASK VERSION [OPTION...]", help=words)
    return parser
