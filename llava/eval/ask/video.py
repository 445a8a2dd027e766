"""Ask one of Transformers' own vision-language models the questions of a JSONL file about videos.

Question lines hold ``question_id``, ``video`` (relative to ``--video-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``. Every class that
``llava.pruning.prune`` supports and that reads videos will do, such as LLaVA-NeXT-Video and Qwen2.5-VL; without a
pruner, every class that answers to Transformers' chat templates.
"""

import logging
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers.video_utils import VideoMetadata

from llava import provenance
from llava.asking.batch import add_generation_args, check_decoding, generation_options
from llava.asking.conversations import Video
from llava.asking.load import DTYPES, by_flags, check_device_flag, choose_pruner, model_name
from llava.asking.losses import noted, without_placeholders
from llava.asking.processes import Processes
from llava.asking.prompts import vqa_loader_query
from llava.asking.questions import Question
from llava.asking.vlm import VlmBackend
from llava.command import at_least, reason, with_defaults
from llava.eval.ask.answers import WriteAnswer
from llava.eval.ask.dataset import ImageError, QuestionError, Sample, batches, check_text
from llava.eval.ask.loop import Run, answered_or_refused, record
from llava.eval.ask.options import add_loop_args, describe_pruner
from llava.eval.ask.program import evaluate
from llava.model.devices import ATTENTION, check_attention, check_dtype
from llava.pruners import Pruner, add_pruner_args
from llava.records import InputError, local_path, read_jsonl
from llava.selecting.options import ATTENTION as READ_AS_ATTENTION
from llava.selecting.options import BUDGET_SCOPES, POSITIONS, RELEVANCE, TEXT_CHUNKING, PruningOptions
from llava.video import VideoError, import_av, read_clip

logger = logging.getLogger(__name__)

QUESTION_KEYS = {"question_id": (int, str), "video": str, "text": str}
VIDEO_PLACEHOLDER = "<video>"
PRUNING_OPTIONS = ("attention", "relevance", "text_tower", "text_chunking", "positions", "budget_scope", "prune_layer")
"""What ``llava.pruning.prune`` takes besides the pruner."""


@dataclass(frozen=True)
class VideoAnswer:
    """What the model said about a video.

    Args:
        text: the decoded answer, stripped.
        frames: how many it was shown.
        visual_tokens: visual tokens the language model read.
        tokens_before: visual tokens before pruning.
        latency_ms: wall time of the batch divided by its size, milliseconds, frames already decoded.
        lost: what was lost of it, by the names of ``llava.asking.losses``.
    """

    text: str
    frames: int
    visual_tokens: int
    tokens_before: int
    latency_ms: float
    lost: Mapping[str, Any] = field(default_factory=dict)


class VideoDataset(Dataset):
    """The frames of the videos that samples ask about.

    Args:
        samples: the file of the video in ``image``.
        num_frames: frames read of each, evenly spread; of a shorter video all.
    """

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


class VideoBackend(VlmBackend):
    """A model that answers questions about one video each and counts its tokens.

    Attributes:
        shown: visual tokens of each question of the last batch, before pruning.
    """

    shown: list[int]

    def _inputs(self, *args: Any) -> Any:
        inputs = super()._inputs(*args)
        names = ("video_token_id", "video_token_index", "image_token_id", "image_token_index")
        ids = [getattr(self.model.config, name) for name in names if hasattr(self.model.config, name)]
        self.shown = torch.isin(inputs["input_ids"], torch.tensor(ids).to(inputs["input_ids"])).sum(dim=1).tolist()
        return inputs


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
    samples = video_samples(read_jsonl(args.question_file, QUESTION_KEYS), args.image_folder)
    evaluate(args, pruner, samples, args.question_file, ask=_ask)


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
    settings = {name: getattr(args, name) for name in PRUNING_OPTIONS if getattr(args, name) is not None}
    if settings and pruner is None:
        given = ", ".join(f"--{name}" for name in settings)
        raise InputError(f"{given} without a pruner: name it, as in --pruner cdpruner")
    check_device_flag(args.device)
    try:
        import_av()
        on_cpu = args.device == "cpu" or not torch.cuda.is_available()
        check_attention(args.attn_implementation, on_cpu, check_dtype("dtype", args.dtype))
        PruningOptions(pruner, **settings)
    except (ImportError, ValueError) as error:
        raise InputError(by_flags(str(error), vars(args))) from error
    check_decoding(vars(args), "--")
    args.dtype = args.dtype or ("auto" if torch.cuda.is_available() and args.device != "cpu" else "float32")


def _ask(
    args: Namespace, pruner: Pruner | None, samples: dict[int, Sample], write: WriteAnswer, processes: Processes
) -> None:
    """Load the model and let it answer ``samples``, given by their index among all questions."""
    backend = _load(args, pruner, processes)
    options = (args.temperature, args.top_p, args.num_beams, args.max_new_tokens, args.static_cache)
    plan = Run(
        model_name(args),
        describe_pruner(pruner) | {"run": _describe_run(args, backend.model)},
        generation_options(*options),
        args.batch_size,
        args.num_workers,
        args.on_error,
        progress=processes.is_main,
    )
    indices, dataset = list(samples), VideoDataset(list(samples.values()), args.for_get_frames_num)
    start = time.perf_counter()
    bar = tqdm(total=len(dataset), unit="video", desc=plan.model_id, leave=None, disable=not plan.progress)
    with bar as progress:
        for place, result in _answers(dataset, backend, plan):
            if isinstance(result, QuestionError) and plan.on_error == "stop":
                raise InputError(f"{result}; a rerun continues here (--on-error skip goes on)") from result
            write(indices[place], record(dataset.samples[place], result, plan))
            progress.update()
    if processes.is_main:
        logger.info("%d questions at %.2f per second", len(samples), len(samples) / (time.perf_counter() - start))


def _load(args: Namespace, pruner: Pruner | None, processes: Processes) -> VideoBackend:
    settings = {name: getattr(args, name) for name in PRUNING_OPTIONS if getattr(args, name) is not None}
    settings |= {"attn_implementation": args.attn_implementation} if args.attn_implementation else {}
    try:
        return VideoBackend(args.model_path, processes, pruner=pruner, dtype=args.dtype, **settings)
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {args.model_path}: {reason(error)}") from error


def _answers(
    dataset: VideoDataset, backend: VideoBackend, plan: Run
) -> Iterator[tuple[int, VideoAnswer | QuestionError]]:
    """Yield the index of every sample with its answer, or with the reason why its video could not be read.

    Videos of a batch that have different numbers of frames are shown apart: not every processor can stack them.
    """
    for batch in batches(dataset, plan.batch_size, plan.num_workers):
        alike = defaultdict(dict)
        for index, video in batch:
            if not isinstance(video, QuestionError):
                alike[len(video.frames)][index] = video
        for videos in alike.values():
            asked = [(dataset.samples[index], video) for index, video in videos.items()]
            respond = partial(_answer_batch, backend, dataset.num_frames, plan.generation)
            answered = answered_or_refused(respond, asked, [sample.question_id for sample, _ in asked])
            yield from zip(videos, answered, strict=True)
        yield from ((index, error) for index, error in batch if isinstance(error, QuestionError))


def _answer_batch(
    backend: VideoBackend, frames: int, generation: dict[str, Any], asked: Sequence[tuple[Sample, Video]]
) -> list[VideoAnswer]:
    start = time.perf_counter()
    replies = backend.answer([_question(*each) for each in asked], generation)
    latency_ms = round(1000 * (time.perf_counter() - start) / len(asked), 2)
    kept = backend.shown if backend.record is None else backend.record.visual_tokens
    answers = []
    for reply, (_, video), *tokens in zip(replies, asked, kept, backend.shown, strict=True):
        lost = noted({"frames_missing": frames - len(video.frames)}) | reply.lost
        answers.append(VideoAnswer(reply.text, len(video.frames), *tokens, latency_ms, lost))
    return answers


def _question(sample: Sample, video: Video) -> Question:
    text, _ = without_placeholders(sample.prompt, VIDEO_PLACEHOLDER)  # the template places it
    return Question(text.strip(), lambda: [video], f"question {sample.question_id!r}")


def _describe_run(args: Namespace, model: Any) -> dict[str, Any]:
    """What decides the answers besides the pruner."""
    names = (*PRUNING_OPTIONS, "for_get_frames_num", "temperature", "top_p", "num_beams", "max_new_tokens")
    return {
        "model_path": args.model_path,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention_implementation": model.config._attn_implementation,
        "device": str(model.device),
        **{name: getattr(args, name) for name in names if getattr(args, name) is not None},
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="python -m llava.eval video", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model-path", help="folder or hub id of a checkpoint in Transformers' format")
    parser.add_argument("--question-file", default="tables/question.jsonl")
    add_loop_args(parser, media="video")
    parser.add_argument("--for_get_frames_num", type=at_least(1), default=32, help="frames read of each video")
    add_generation_args(parser, max_new_tokens=128, temperature=0.0)
    group = parser.add_argument_group("model")
    group.add_argument("--device", help="cuda, cuda:1, cpu, ...; a GPU, or else the CPU, if not given")
    group.add_argument("--dtype", choices=DTYPES, help="the checkpoint's on a GPU")
    group.add_argument("--attn", dest="attn_implementation", choices=ATTENTION)
    group.add_argument("--budget_scope", choices=BUDGET_SCOPES, help="budget per frame, or over all frames")
    group.add_argument("--positions", choices=POSITIONS, help="of kept tokens; the family's own if not given")
    group.add_argument(
        "--prune_layer", type=at_least(0), metavar="K", help="decoder layers that see all tokens; 0 if not given"
    )
    group.add_argument("--attention", choices=READ_AS_ATTENTION, help="what pruners read as attention")
    group.add_argument("--relevance", choices=RELEVANCE, help="what pruners read as relevance")
    group.add_argument("--text_tower", help="the CLIP that the encoder came from, for --relevance clip_text")
    group.add_argument("--text_chunking", choices=TEXT_CHUNKING, help="how texts over 77 tokens are cut")
    add_pruner_args(parser)
    return parser
