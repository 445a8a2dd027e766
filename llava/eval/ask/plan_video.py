"""The words of ``scripts/video/eval.sh`` as a command."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.eval.ask.parsers import video_parser
from llava.eval.ask.plan import LAUNCHERS, Places, name_of, setting_of
from llava.eval.ask.words import budget_named, given, pruner_of

SCRIPT, CHECKPOINT = "bash scripts/video/eval.sh", "LLaVA-NeXT-Video-7B-hf"
USAGE = """bash scripts/video/eval.sh QUESTIONS VIDEOS [TOKENS] [OPTION...]
  QUESTIONS  a file of lines with question_id, video and text
  VIDEOS     the folder that the videos are relative to
  TOKENS     visual tokens kept per frame; leave it out with --keep_ratio R or --pruner none
  OPTION     as of python -m llava.eval video, e.g. --for_get_frames_num 8, --budget_scope image
places, by environment: CKPT_DIR={folder} CKPT={checkpoint} OUTPUT_DIR={output}
"""


def video_plan(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[list[str]], str]:
    """The words for Python, as of one process, of ``QUESTIONS VIDEOS [TOKENS] [OPTION...]``, and where the answers go.

    A usage error ends the program.
    """
    folder, checkpoint = environment.get("CKPT_DIR") or "./checkpoints", environment.get("CKPT") or CHECKPOINT
    output = environment.get("OUTPUT_DIR") or "./results/video"
    usage = USAGE.format(folder=folder, checkpoint=checkpoint, output=output)
    parser = video_parser()
    parser.prog, parser.usage = SCRIPT, usage
    if {"-h", "--help"} & {*words}:
        print(f"usage: {usage}")
        sys.exit()
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        parser.error("QUESTIONS or VIDEOS is missing")
    questions, videos, *words = words
    words = [*budget_named(words[:1]), *words[1:]]
    words += [] if given(words, "--pruner") else ["--pruner", pruner_of(words)]
    parser.parse_args(words)
    from llava.eval.ask.video import CHOSEN  # imports torch, for which a word that is wrong need not wait

    setting = setting_of(parser, words, checkpoint, "", CHOSEN, "attention_implementation")
    answers = f"{output}/{Path(questions).stem}/{checkpoint}/{name_of(setting, checkpoint)}.jsonl"
    devices = Places.of(environment, checkpoint).devices
    start = ["-m", LAUNCHERS["torchrun"][0], "--standalone", LAUNCHERS["torchrun"][1], str(len(devices))]
    command = ["-m", "llava.eval", "video", "--model-path", f"{folder}/{checkpoint}", "--question-file", questions]
    command += ["--video-folder", videos, "--answers-file", answers, *words]
    return [[*(start if len(devices) > 1 else []), *command]], answers
