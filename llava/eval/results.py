"""Results on disk: what was measured, with which pruner, at which budget, on which checkpoint.

The scripts write them to ``BENCHMARK/answers/SPLIT/CHECKPOINT/PRUNER/SETTING.json`` below the folder of all benchmarks,
beside the answers, ``SETTING.jsonl``. The setting is the budget (``vtn_64``, ``ratio_0.25``, ``full``) and, each after
an underscore, every option that differs from its default.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from tqdm import tqdm

from llava.eval.benchmarks import BENCHMARKS
from llava.eval.profile import Profile, profile_of
from llava.eval.records import InputError, check_record, read_jsonl
from llava.eval.scorer import read_json

logger = logging.getLogger(__name__)

PATTERN = "*/answers/*/*/*/*.json"
RESULT_KEYS = {"benchmark": str, "metric": str, "value": (int, float), "count": int}
BUDGET = re.compile(r"(vtn_\d+|ratio_[\d.]+|full)(?=_|$)")
LAYOUT = re.compile(r"_(native|fixed)(?=_|$)")
SEED = re.compile(r"_seed(\d+)(?=_|$)")
OPTIONS = ("r", "theta", "contextual_ratio", "cues", "budget_scope", "positions", "prune_layer", "text_chunking")
VALUES = (r"[\d.]+", "paper", "qwen_release", "tile", "image", "compact", "original", "release", "bos_eos")
PRUNER_OPTION = re.compile(rf"_(?:{'|'.join(OPTIONS)})(?:{'|'.join(VALUES)})(?=_|$)")


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


def parse_setting(name: str) -> Setting | None:
    """Take the name of a result apart; None if it is not one of the scripts'."""
    budget = BUDGET.match(name)
    if budget is None:
        return None
    rest = name[budget.end() :]
    options = "".join(PRUNER_OPTION.findall(rest))
    layout, seed = LAYOUT.search(rest), SEED.search(rest)
    for taken in (PRUNER_OPTION, LAYOUT, SEED):
        rest = taken.sub("", rest)
    return Setting(budget[0] + options, layout and layout[1], rest.strip("_"), int(seed[1]) if seed else 0)


def collect(eval_dir: str | Path) -> list[Measurement]:
    """Every result below ``eval_dir``.

    Raises:
        InputError: no such folder, no result in it, or a result that is broken; names the file.
    """
    base = Path(eval_dir).expanduser()
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
    check_record(result, str(path), RESULT_KEYS)
    if not math.isfinite(result["value"]):
        raise InputError(f"{path}: its value is {result['value']}; score the answers again")
    split, checkpoint, pruner = path.parts[-4:-1]
    visual_tokens, layout, profile = _read_answers(path.with_suffix(".jsonl"))
    layout = layout or setting.layout or ("fixed" if "v1.6" in checkpoint else "native")
    interval = result.get("ci95")
    yield Measurement(
        group=Group(checkpoint, layout, setting.variant),
        pruner=pruner,
        setting=setting,
        column=_column(result["benchmark"], split),
        value=float(result["value"]),
        count=result["count"],
        ci95=tuple(interval) if interval else None,
        unanswered=result.get("missing", 0),
        visual_tokens=visual_tokens,
        path=path,
        profile=profile,
    )


def _column(benchmark: str, split: str) -> str:
    usual = benchmark not in BENCHMARKS or split == BENCHMARKS[benchmark].usual_split
    return benchmark if usual else f"{benchmark} ({split})"


def _read_answers(path: Path) -> tuple[float | None, str | None, Profile | None]:
    """Mean number of visual tokens, layout of the tiles and profile, None where the answers do not record them."""
    if not path.is_file():
        return None, None, None
    metadata: list[dict[str, Any]] = [record.get("metadata") or {} for record in read_jsonl(path, {})]
    tokens = [entry["visual_tokens"] for entry in metadata if "visual_tokens" in entry]
    return fmean(tokens) if tokens else None, metadata[0].get("run", {}).get("anyres"), profile_of(metadata)
