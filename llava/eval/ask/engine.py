"""``--engine vllm``: the questions of an evaluation answered by vLLM, everything else as ever."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava import provenance
from llava.asking.load import by_flags, model_path
from llava.asking.processes import Processes
from llava.command import reason
from llava.eval.ask.dataset import QuestionDataset, check_text, read_image
from llava.eval.ask.options import CHOSEN
from llava.eval.tasks.base import Sample
from llava.pruners import Pruner
from llava.records import InputError
from llava.vllm.answering import EngineModel, Item, check_served, load_engine
from llava.vllm.registration import installed

REQUESTS = 256
"""Questions handed over at once, at least: vLLM makes batches of its own of them."""
NOT_SERVED = {
    "model_base": None,
    "device": None,
    "attn_implementation": None,
    "vision_dtype": None,
    "positions": "compact",
    "prune_layer": 0,
    "budget": "fixed",
    "erank_ref": None,
    "mass": 0.9,
    "budget_split": "even",
    "static_cache": None,
    "profile": False,
    "num_beams": 1,
    "load_8bit": False,
    "load_4bit": False,
    "cuda_graphs": None,
}
"""Options of LLaVA's own classes, and the value that says nothing of them."""

Asked = tuple[Tensor, Image.Image | None, tuple[int, int] | None]


def check_engine(args: Namespace) -> None:
    """Refuse what vLLM cannot do, before it is started; let it have many questions at a time.

    Raises:
        InputError: an option of LLaVA's own classes, an unusable checkpoint, or vLLM is not there.
    """
    if args.engine is None:
        for name in ("tensor_parallel_size", "allow_crop"):
            if getattr(args, name, None) is not None:
                raise InputError(f"--{name.replace('_', '-')} is for --engine vllm")
        return
    for name, usual in NOT_SERVED.items():
        if getattr(args, name, usual) not in (usual, None):
            words = f"{name} is an option of LLaVA's own classes: leave it out with --engine vllm"
            raise InputError(by_flags(words, [name]))
    if args.anyres != "native":
        raise InputError(f"--anyres {args.anyres}: vLLM lays out tiles as LLaVA-NeXT does, --anyres native")
    try:
        check_served(model_path(args), bool(args.allow_crop))
    except (OSError, ValueError) as error:
        raise InputError(f"--engine vllm: {error}") from error
    if find_spec("vllm") is None:
        raise InputError("--engine vllm: vLLM is not installed: pip install '.[vllm]'")
    args.batch_size = max(args.batch_size, REQUESTS)


class EngineDataset(QuestionDataset):
    """Samples as vLLM reads them: ids and pixels as ever, but that vLLM makes the pixels.

    An item is ``(input_ids, image, size)``, the last two None for a question without an image.
    """

    def __getitem__(self, index: int) -> Asked:
        sample = self.samples[index]
        check_text(sample)
        if sample.image is None:
            return self._encode(sample), None, None
        image = read_image(sample.image, sample.question_id)
        return self._encode(sample), image, image.size

    def item(self, index: int, read: Asked, model: EngineModel | None = None) -> Item:
        input_ids, image, _ = read
        query = self.samples[index].query
        return Item(input_ids, query=query) if image is None else Item(input_ids, [image], query)

    def measured(self, read: Asked, answer: Any) -> dict[str, int]:
        return {name: getattr(answer, name) for name in ("visual_tokens", "tokens_before", "tiles")}


def begin_engine(
    make_dataset: Callable[..., QuestionDataset],
    args: Namespace,
    pruner: Pruner | None,
    samples: Sequence[Sample],
    processes: Processes,
) -> tuple[EngineModel, QuestionDataset, dict[str, Any]]:
    """Start vLLM; see ``llava.eval.ask.program.Begin``.

    Raises:
        InputError: it does not start, or several processes were launched.
    """
    if processes.count > 1:
        raise InputError("--engine vllm starts the processes that it needs: leave out --launcher")
    if make_dataset is not QuestionDataset:
        raise InputError("--engine vllm: this benchmark crops its images itself, which vLLM is not told")
    pruning = {name: getattr(args, name) for name in ("budget_scope", "text_chunking") if getattr(args, name)}
    on_gpu = torch.cuda.is_available()
    engine = {"dtype": args.dtype or ("float16" if on_gpu else "float32")}  # as LLaVA's own classes
    engine |= {"tensor_parallel_size": args.tensor_parallel_size or 1}
    engine |= {"enforce_eager": not on_gpu}  # a CPU captures no graphs: compiling delays the start
    try:
        loaded = load_engine(model_path(args), pruner, args.conv_mode, pruning, **engine)
    except Exception as error:  # vLLM raises many types
        raise InputError(f"vLLM cannot serve {model_path(args)}: {reason(error)}") from error
    dataset = EngineDataset(samples, loaded.tokenizer, None, loaded.preparer.config, args.conv_mode)
    return loaded, dataset, _described(args, loaded)


def _described(args: Namespace, model: EngineModel) -> dict[str, Any]:
    config = model.llm.llm_engine.vllm_config
    flags = {name: getattr(args, name) for name in (*CHOSEN, "engine", "allow_crop")}
    return {
        "model_path": model_path(args),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "device": str(config.device_config.device_type),
        **{name: value for name, value in flags.items() if value is not None},
        "versions": provenance.versions() | {"vllm": installed()},
        "commit": provenance.commit(),
    }
