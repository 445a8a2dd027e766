"""What a result was measured with, from what its answers note of themselves; no file's name is read for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from llava.eval.tasks import TASKS
from llava.records import check_record

SHORT = {"important_ratio": "r", "conv_mode": "", "model_base": "model-base"}
"""Names of options in labels, where they are others than in records: VisPruner's own scripts have ``r0.75``."""
OF_ROWS = ("budget_scope", "positions", "prune_layer", "text_chunking", "relevance", "text_tower", "attention")
OF_ROWS += ("budget", "budget_split", "erank_ref", "mass")
"""Options of the model that belong to a row of a table, as those of the pruner do."""
NEUTRAL = ("anyres", "commit", "device", "files", "model_path", "static_cache", "cuda_graphs", "versions", "batch_size")
"""What a run notes that is no option, changes no answer but by rounding, or, the layout, has a place of its own."""
BUDGETS = {"visual_token_num": "vtn", "keep_ratio": "ratio"}
VIDEO = {"for_get_frames_num": 32, "max_new_tokens": 128}
KEYS = {"pruner": str, "label": str, "layout": str, "variant": str, "seed": int}


@dataclass(frozen=True)
class Setting:
    """What a result was measured with.

    Args:
        pruner: its name, ``none`` without one.
        label: budget and what differs from the defaults of the pruner and of how it is applied, its seed aside.
        layout: ``native`` or ``fixed`` tiles of LLaVA-NeXT; ``native`` for models of one tile.
        variant: every other option of the run that is not the benchmark's usual one, such as ``dtypebfloat16``.
        seed: of a pruner that has one.
    """

    pruner: str
    label: str
    layout: str
    variant: str
    seed: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any], checkpoint: str, benchmark: str) -> "Setting":
        """The setting of answers.

        Args:
            metadata: of one of them, with ``pruner``, ``options`` and ``run``.
            checkpoint: the name of its folder.
            benchmark: the name of what was asked, which has a usual template and length of answers.
        """
        pruner, options, run = metadata["pruner"], metadata.get("options", {}), dict(metadata.get("run", {}))
        if "attention_implementation" in run:
            run["attn"] = run.pop("attention_implementation")
        elif "attention" in run:  # a cue of hosted models alone
            run["attn"] = run.pop("attention")
        usual = _usual(run, checkpoint, benchmark)
        told = {name: value for name, value in run.items() if name not in NEUTRAL and not _same(value, usual.get(name))}
        rows = _told(pruner, options) | {name: told[name] for name in OF_ROWS if name in told}
        rows = {} if pruner == "none" else rows  # how a choice is applied says nothing of a run without one
        variant = {name: value for name, value in told.items() if name not in OF_ROWS}
        budgets = [f"{short}_{_plain(options[name])}" for name, short in BUDGETS.items() if name in options]
        label = "_".join([*(budgets or ["full"]), *_words(rows)])
        layout = run.get("anyres") or usual_layout(checkpoint)
        return cls(pruner, label, layout, "_".join(_words(variant)), options.get("seed", 0))

    @classmethod
    def read(cls, said: Mapping[str, Any], where: str) -> "Setting":
        """The setting that a result states of itself.

        Raises:
            InputError: it states something else; names ``where``.
        """
        check_record(said, where, KEYS)
        return cls(**{name: said[name] for name in KEYS})


def usual_layout(checkpoint: str) -> str:
    """How the papers lay out the tiles of a checkpoint, by its name."""
    return "fixed" if "v1.6" in checkpoint else "native"


def usual_template(checkpoint: str, benchmark: str) -> str:
    """The template that a checkpoint is asked with, by its name; of a Vicuna the benchmark has one."""
    for part, template in (("mistral", "mistral_instruct"), ("34b", "chatml_direct")):
        if part in checkpoint:
            return template
    return TASKS[benchmark].asks.template if benchmark in TASKS else "vicuna_v1"


def _usual(run: Mapping[str, Any], checkpoint: str, benchmark: str) -> dict[str, Any]:
    """What a run of a benchmark notes unless it is told otherwise."""
    dtype, device = run.get("dtype"), str(run.get("device", ""))
    half = "float32" if device and not device.startswith("cuda") else "float16"
    usual_dtype = dtype if not device and dtype == "float32" else half  # who notes no device may have had either
    return {
        "attn": "sdpa",
        "budget": "fixed",
        "budget_split": "even",
        "mass": 0.9,
        "conv_mode": usual_template(checkpoint, benchmark),
        "dtype": usual_dtype,
        **({"max_new_tokens": 1024} | TASKS[benchmark].asks.generation if benchmark in TASKS else VIDEO),
        "num_beams": 1,
        "positions": "original" if run.get("prune_layer") else "compact",
        "prune_layer": 0,
        "relevance": "llm_text",
        "temperature": 0,  # of the scripts
        "text_chunking": "release",
        "vision_dtype": dtype,
    }


def _told(pruner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a pruner that differ from its defaults, budget and seed aside; all of one that is not known.

    One that is on has no value: its name says so.
    """
    from llava.pruners import PRUNERS  # not by those who only read names

    known = fields(PRUNERS[pruner]) if pruner in PRUNERS else ()
    defaults = {option.name: option.default for option in known}
    aside = (*BUDGETS, "seed")
    return {
        name: "" if value is True else value
        for name, value in options.items()
        if name not in aside and not (name in defaults and _same(value, defaults[name]))
    }


def _same(value: Any, usual: Any) -> bool:
    return value is None or _plain(value) == _plain(usual)


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options by name, each as a word that can stand in a file's name."""
    return [re.sub("/", "-", f"{SHORT.get(name, name)}{_plain(options[name])}") for name in sorted(options)]


def _plain(value: Any) -> str:
    """A number as it is usually written, whichever kind it is; anything else as text."""
    return f"{value:.15g}" if isinstance(value, Real) and not isinstance(value, bool) else str(value)
