"""Ask one of Transformers' own vision-language models the questions of a JSONL file about videos.

Question lines hold ``question_id``, ``video`` (relative to ``--video-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``. Every class that
``llava.pruning.prune`` supports and that reads videos will do, such as LLaVA-NeXT-Video and Qwen2.5-VL; without a
pruner, every class that answers to Transformers' chat templates.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.video_utils import VideoMetadata

from llava.asking.batch import check_decoding
from llava.asking.conversations import Video
from llava.asking.load import (
    by_flags,
    check_device_flag,
    choose_pruner,
    complete_erank_ref,
    model_path,
)
from llava.asking.losses import without_placeholders
from llava.asking.model import Model
from llava.asking.processes import Processes
from llava.asking.prompts import vqa_loader_query
from llava.asking.questions import Answer, Question
from llava.asking.vlm import Item, VlmModel, load_vlm
from llava.command import reason, with_defaults
from llava.eval.ask.dataset import ImageError, Sample, check_text, given_by_budgets
from llava.eval.ask.options import DECODING, describe_run, first
from llava.eval.ask.parsers import video_parser
from llava.eval.ask.program import evaluate
from llava.model.devices import check_attention, check_dtype
from llava.pruners import Pruner
from llava.records import InputError, local_path, read_jsonl
from llava.selecting.options import HOSTED, PruningOptions, names_of
from llava.video import VideoError, import_av, read_clip

QUESTION_KEYS = {"question_id": (int, str), "video": str, "text": str}
VIDEO_PLACEHOLDER = "<video>"
CHOSEN = (*names_of(HOSTED), "for_get_frames_num", *DECODING, "limit")
"""Flags whose values the answers record."""


class VideoDataset(Dataset):
    """The frames of the videos that samples ask about.

    Args:
        samples: the file of the video in ``image``.
        num_frames: frames read of each, evenly spread; of a shorter video all.
    """

    unit = "video"

    def __init__(self, samples: Sequence[Sample], num_frames: int):
        self.samples = samples
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.samples)

    def prompt_length(self, index: int) -> int:
        """Characters of a prompt, by which questions are put in batches."""
        return len(self.samples[index].prompt)

    def __getitem__(self, index: int) -> Video:
        sample = self.samples[index]
        check_text(sample)
        try:
            clip = read_clip(sample.image, self.num_frames)
        except (VideoError, MemoryError, OSError, ValueError) as error:
            raise ImageError(f"question {sample.question_id!r}: cannot read its video: {error}") from error
        return Video(clip.frames, VideoMetadata(clip.total, fps=clip.fps, frames_indices=clip.indices))

    def alike(self, video: Video) -> Hashable:
        """Videos of as many frames share a call: not every processor can stack others."""
        return len(video.frames)

    def item(self, index: int, video: Video, model: Model) -> Item:
        """A question about a video as ``model`` reads it; the template places the video."""
        sample, missing = self.samples[index], self.num_frames - len(video.frames)
        text, _ = without_placeholders(sample.prompt, VIDEO_PLACEHOLDER)
        item = model.item(Question(text.strip(), lambda: [video], f"question {sample.question_id!r}"))
        return replace(item, lost={"frames_missing": missing, **item.lost})

    def measured(self, video: Video, answer: Answer) -> dict[str, Any]:
        """What the ``metadata`` of an answer say of frames and tokens."""
        tokens = {"visual_tokens": answer.visual_tokens, "tokens_before": answer.tokens_before}
        return {"frames": len(video.frames)} | tokens | given_by_budgets(answer)


def video_samples(questions: Iterable[dict[str, Any]], video_folder: str | Path) -> list[Sample]:
    """Questions as they are asked; ``video`` is relative to ``video_folder``."""
    folder = local_path(video_folder)
    samples = []
    for line in questions:
        lost = {"placeholders": without_placeholders(line["text"], VIDEO_PLACEHOLDER)[1]}
        places = (line["text"], vqa_loader_query(line["text"]), folder / line["video"])
        samples.append(Sample(line["question_id"], *places, lost=lost))
    return samples


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args = with_defaults(args, build_parser())
    pruner = choose_pruner(args)
    _check(args, pruner)
    questions = first(read_jsonl(args.question_file, QUESTION_KEYS), args.limit, args.question_file)
    evaluate(args, pruner, video_samples(questions, args.image_folder), args.question_file, begin=_begin)


def _check(args: Namespace, pruner: Pruner | None) -> None:
    """Refuse what cannot work, before anything is read; choose the dtype."""
    if not args.model_path:
        raise InputError("--model-path is missing: a folder or hub id in Transformers' format")
    if args.image_folder and not local_path(args.image_folder).is_dir():
        raise InputError(f"--video-folder {args.image_folder}: no such folder")
    if args.profile:
        raise InputError("--profile times the stages of LLaVA's own classes; this program has --save-latency")
    if args.static_cache and pruner is not None:
        raise InputError("--static-cache: a pruned model of Transformers needs a cache that grows")
    settings = {name: getattr(args, name) for name in names_of(HOSTED) if getattr(args, name) is not None}
    if settings and pruner is None:
        given = ", ".join(f"--{name}" for name in settings)
        raise InputError(f"{given} without a pruner: name it, as in --pruner cdpruner")
    check_device_flag(args.device)
    try:
        import_av()
        on_cpu = args.device == "cpu" or not torch.cuda.is_available()
        check_attention(args.attn_implementation, on_cpu, check_dtype("dtype", args.dtype))
        complete_erank_ref(args, PruningOptions(pruner, **settings), model_path(args))
    except (ImportError, ValueError) as error:
        raise InputError(by_flags(str(error), vars(args))) from error
    check_decoding(vars(args), "--")
    args.dtype = args.dtype or ("auto" if torch.cuda.is_available() and args.device != "cpu" else "float32")


def _begin(
    args: Namespace, pruner: Pruner | None, samples: Sequence[Sample], processes: Processes
) -> tuple[VlmModel, VideoDataset, dict[str, Any]]:
    settings = {name: getattr(args, name) for name in names_of(HOSTED) if getattr(args, name) is not None}
    settings |= {"pruner": pruner, "dtype": args.dtype, "attn_implementation": args.attn_implementation}
    try:
        loaded = load_vlm(model_path(args), processes.device, **settings)
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {args.model_path}: {reason(error)}") from error
    described = describe_run(args, loaded.model, CHOSEN, "attention_implementation")
    return loaded, VideoDataset(samples, args.for_get_frames_num), described


def build_parser() -> ArgumentParser:
    """The command line."""
    return video_parser()
