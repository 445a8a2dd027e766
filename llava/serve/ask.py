"""Questions about a picture, answered on the screen or as lines of JSON, and a conversation about one."""

import json
import logging
from argparse import Namespace
from typing import Any

from llava.asking.images import load_image, names_video, visuals_of
from llava.asking.load import by_flags, check_options, choose_pruner, load, model_path
from llava.asking.losses import warn_of_losses
from llava.asking.model import Model
from llava.asking.prompts import check_conv_mode, typed
from llava.asking.questions import Answer
from llava.command import reason
from llava.flags.pruning import HOSTED, NATIVE, options_of
from llava.pruners import Pruner
from llava.records import InputError, local_path
from llava.serve.cli import converse

logger = logging.getLogger(__name__)

GENERATION = ("temperature", "top_p", "num_beams", "max_new_tokens")
LOADING = ("device", "dtype", "attn_implementation", "vision_dtype", "cuda_graphs", "load_8bit", "load_4bit")
EMBEDDED = "the embedded model answers, which knows drawn shapes alone; --model names another"


def ask(args: Namespace) -> None:
    """Answer ``args.questions`` about ``args.image``.

    Raises:
        InputError: an unreadable image, an empty question or an option that does not fit, before the model loads; a
            checkpoint that cannot be loaded, or that does not read what is shown.
    """
    pruner = _checked(args)
    if names_video(args.image) and not local_path(args.image).is_file():
        raise InputError(f"cannot read the video {args.image}: no such file")
    shown, questions = visuals_of(args.image), [typed(question).strip() for question in args.questions]
    if not all(questions):
        raise InputError("QUESTION is empty")
    model = _loaded(args, pruner)
    generation = {name: getattr(args, name) for name in GENERATION}
    for question in questions:
        show = None if args.json else lambda piece: print(piece, end="", flush=True)
        try:
            answer = model.answer(shown, question, show=show, **generation)
        except ValueError as error:  # a prompt that is too long, a video that is none
            raise InputError(str(error)) from error
        if args.json:
            print(json.dumps(_described(args, question, answer, model), ensure_ascii=False), flush=True)
        else:
            print(flush=True)
            logger.info("%s", told(answer))
        warn_of_losses([answer])


def chat(args: Namespace) -> None:
    """Answer the lines of the input about ``args.image_file`` until an empty one.

    Raises:
        InputError: an unreadable image or an option that does not fit, before the model loads; a checkpoint that cannot
            be loaded.
    """
    pruner, image = _checked(args), load_image(args.image_file)
    generation = {"temperature": args.temperature, "max_new_tokens": args.max_new_tokens}
    converse(_loaded(args, pruner).chat(image), args.debug, **generation)


def _checked(args: Namespace) -> Pruner | None:
    """The pruner that is meant; InputError for options that do not fit, whatever the checkpoint is."""
    pruner = choose_pruner(args)
    check_options(args, pruner)
    if args.conv_mode is not None:
        check_conv_mode(args.conv_mode, "--conv-mode")
    return pruner


def told(answer: Answer) -> str:
    """One line about an answer: tokens and milliseconds."""
    read = f"{answer.visual_tokens} of {answer.tokens_before} visual tokens, {1000 * answer.seconds:.0f} ms"
    return read if answer.text else f"(no answer) {read}"


def _loaded(args: Namespace, pruner: Pruner | None) -> Model:
    """The checkpoint that is asked.

    Raises:
        InputError: it cannot be loaded, or not with these options.
    """
    path = model_path(args)
    if args.model_path is None:
        logger.info(EMBEDDED)
    hosted = [name for name in options_of(HOSTED) if name not in options_of(NATIVE)]
    names = (*LOADING, *options_of(NATIVE), *hosted)
    options = {name: getattr(args, name) for name in names if getattr(args, name) not in (None, False)}
    of_llava = {"base": args.model_base, "conv_mode": args.conv_mode, "anyres": args.anyres}
    try:
        return load(path, pruner=pruner, **of_llava, **options)
    except TypeError as error:
        given = ", ".join(f"--{name}" for name in hosted if name in options)
        fault = f"{given} is for models in Transformers' format" if given else by_flags(reason(error), options)
        raise InputError(f"cannot load {path}: {fault}") from error
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {path}: {by_flags(reason(error), options)}") from error


def _described(args: Namespace, question: str, answer: Answer, model: Model) -> dict[str, Any]:
    return {
        "image": args.image,
        "question": question,
        "answer": answer.text,
        "visual_tokens": answer.visual_tokens,
        "tokens_before": answer.tokens_before,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "milliseconds": round(1000 * answer.seconds, 1),
        "model": model.name,
        **model.options.describe(),
        **({"lost": dict(answer.lost)} if answer.lost else {}),
    }
