"""Results on disk: what was measured, with which pruner, at which budget, on which checkpoint.

The scripts write them to ``BENCHMARK/answers/SPLIT/CHECKPOINT/PRUNER/SETTING.json`` below the folder of all benchmarks,
beside the answers, ``SETTING.jsonl``. The setting is the budget (``vtn_64``, ``ratio_0.25``, ``full``) and, each after
an underscore, every option that differs from its default.
"""

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, NamedTuple

from tqdm import tqdm

from llava.asking.losses import count_losses
from llava.conversation import conv_templates
from llava.eval.results.metadata import read_metadata
from llava.eval.results.profile import Profile, profile_of
from llava.eval.tasks import TASKS
from llava.pruners import PRUNERS, option_names
from llava.records import InputError, check_record, local_path, read_json

logger = logging.getLogger(__name__)

PATTERN = "*/answers/*/*/*/*.json"
RESULT_KEYS = {"benchmark": str, "metric": str, "value": (int, float), "count": int}
OPTIONAL_KEYS = {"missing": int, "ci95": (list, NoneType)}
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
BUDGET = re.compile(rf"(?:(vtn|ratio)_({NUMBER})|full)(?=_|$)")
LAYOUTS = ("native", "fixed")
RATIO = "important_ratio"  # has a short name, as in VisPruner's own scripts
OF_ROWS = ("budget_scope", "positions", "prune_layer", "text_chunking")
"""Options of the model that belong to a row; those of the pruners do, too."""
OF_TABLES = (
    *("attn", "dtype", "vision_dtype", "model-base", "temperature", "top_p", "num_beams", "max_new_tokens"),
    *conv_templates,
)
"""Options of a run, and its template, that no two rows of a table may differ in."""
USUAL = ("temperature0", "num_beams1", "positionscompact", "prune_layer0", "text_chunkingrelease")
"""Options that say what holds without them; the pruners' defaults are others."""


class Group(NamedTuple):
    """What rows must share to be compared: numbers of different groups never meet in one average.

    Args:
        checkpoint: its folder's name.
        layout: ``native`` or ``fixed`` tiles of LLaVA-NeXT; ``native`` for models of one tile.
        variant: options, other than the pruner's, that differ from their defaults, such as ``dtypebfloat16``.
    """

    checkpoint: str
    layout: str
    variant: str

    def __str__(self) -> str:
        return ", ".join(filter(None, self))


@dataclass(frozen=True)
class Setting:
    """What the name of a result says.

    Args:
        label: budget and options of the pruner, its seed aside.
        layout: None where the name leaves it at the checkpoint's usual one.
        variant: what is left of the name.
        seed: of the pruner ``random``.
    """

    label: str
    layout: str | None
    variant: str
    seed: int


@dataclass(frozen=True)
class Measurement:
    """One result.

    Args:
        column: the benchmark's name, with its split where that is not the usual one.
        visual_tokens: mean number of visual tokens that the language model read; None if the answers do not say.
        ci95: interval of the value, None if the result has none.
        unanswered: questions without an answer.
        profile: how long answering took, None unless it ran with ``--profile``.
        lost: how many questions lost something on their way, by the names of ``llava.asking.losses``.
    """

    group: Group
    pruner: str
    setting: Setting
    column: str
    value: float
    count: int
    ci95: tuple[float, float] | None
    unanswered: int
    visual_tokens: float | None
    path: Path
    profile: Profile | None = None
    lost: Mapping[str, int] = field(default_factory=dict)


def parse_setting(name: str, options: Iterable[str] = ()) -> Setting | None:
    """Take the name of a result apart; None if it is not one of the scripts'.

    Numbers and the order of options may be written in any way: they come out in one.

    Args:
        options: of the pruner, where it has some that no pruner here has.
    """
    budget = BUDGET.match(name)
    if budget is None:
        return None
    of_rows = {RATIO, *OF_ROWS, *option_names(), *options} - {"seed"}
    found = _options(name[budget.end() :], of_rows)
    usual = {*USUAL, *_pruner_defaults()}
    told = {option: value for option, value in found.items() if f"{option}{value}" not in usual}
    rows = [f"{'r' if option == RATIO else option}{told[option]}" for option in sorted(of_rows & told.keys())]
    variant = [f"{option}{told[option]}" for option in sorted(told.keys() - of_rows - {"seed", *LAYOUTS})]
    label = f"{budget[1]}_{_plain(budget[2])}" if budget[1] else "full"
    layout = next((layout for layout in LAYOUTS if layout in told), None)
    seed = found.get("seed", "")
    return Setting("_".join([label, *rows]), layout, "_".join(variant), int(seed) if seed.isdecimal() else 0)


def _options(text: str, of_rows: Iterable[str]) -> dict[str, str]:
    """Options and their values from ``_OPTIONVALUE_OPTIONVALUE``; of one that stands there twice the last counts."""
    names = sorted({*of_rows, *OF_TABLES, "seed", *LAYOUTS}, key=len, reverse=True)
    starts = list(re.finditer(rf"_(?:(r)(?=[\d.])|({'|'.join(map(re.escape, names))}))", text))
    ends = [*(start.start() for start in starts), len(text)]
    found = {text[: ends[0]].strip("_"): ""}  # options of nobody, as a whole
    for start, end in zip(starts, ends[1:], strict=True):
        found[RATIO if start[1] else start[2]] = _plain(text[start.end() : end])
    return {name: value for name, value in found.items() if name}


def _plain(value: str) -> str:
    """A number as it is usually written, anything else as it is."""
    return f"{float(value):.15g}" if re.fullmatch(NUMBER, value) else value


def _pruner_defaults() -> list[str]:
    """The options of all pruners with their defaults, where these say something."""
    known = [option for cls in PRUNERS.values() for option in fields(cls) if option.name in option_names()]
    return [f"{option.name}{_plain(str(option.default))}" for option in known if option.default is not None]


def collect(eval_dir: str | Path) -> list[Measurement]:
    """Every result below ``eval_dir``.

    Raises:
        InputError: no such folder, no result in it, or a result that is broken; names the file.
    """
    base = local_path(eval_dir)
    if not base.is_dir():
        raise InputError(f"--eval-dir {eval_dir}: no such folder")
    paths = sorted(base.glob(PATTERN))
    found = [each for path in tqdm(paths, unit="result", leave=None) for each in _measurements(path)]
    if not found:
        raise InputError(
            f"--eval-dir {eval_dir}: no results in it; the scripts in scripts/v1_5/eval write them, as "
            "BENCHMARK/answers/SPLIT/CHECKPOINT/PRUNER/SETTING.json"
        )
    return found


def _measurements(path: Path) -> Iterator[Measurement]:
    """The measurement in a file, or nothing if the file is something else."""
    result = read_json(path, (dict, list))
    setting = parse_setting(path.stem)
    if setting is None or not isinstance(result, dict) or "benchmark" not in result:
        logger.info("not a result, left out: %s", path)
        return
    check_record(result, str(path), RESULT_KEYS, OPTIONAL_KEYS)
    if not math.isfinite(result["value"]):
        raise InputError(f"{path}: its value is {result['value']}; score the answers again")
    split, checkpoint, pruner = path.parts[-4:-1]
    metadata = _metadata(path.with_suffix(".jsonl"))
    tokens = [entry["visual_tokens"] for entry in metadata if "visual_tokens" in entry]
    first = metadata[0] if metadata else {}
    setting = parse_setting(path.stem, first.get("options", ()))
    layout = first.get("run", {}).get("anyres") or setting.layout or ("fixed" if "v1.6" in checkpoint else "native")
    yield Measurement(
        group=Group(checkpoint, layout, setting.variant),
        pruner=pruner,
        setting=setting,
        column=_column(result["benchmark"], split),
        value=float(result["value"]),
        count=result["count"],
        ci95=_interval(result.get("ci95"), path),
        unanswered=result.get("missing", 0),
        visual_tokens=fmean(tokens) if tokens else None,
        path=path,
        profile=profile_of(metadata),
        lost=count_losses({"metadata": entry} for entry in metadata),
    )


def _interval(ends: list[Any] | None, path: Path) -> tuple[float, float] | None:
    if not ends:
        return None
    named = dict(zip(("low", "high"), ends, strict=False))
    check_record(named, f"{path}, ci95", dict.fromkeys(("low", "high"), (int, float)))
    return ends[0], ends[1]


def _column(benchmark: str, split: str) -> str:
    usual = benchmark not in TASKS or split == TASKS[benchmark].usual_split
    return benchmark if usual else f"{benchmark} ({split})"


def _metadata(path: Path) -> list[dict[str, Any]]:
    """The metadata of answers, empty where they say nothing; none where they are not there."""
    return read_metadata(path) if path.is_file() else []
