"""Results on disk: what was measured, with which pruner, at which budget, on which checkpoint.

The scripts write them to ``BENCHMARK/answers/SPLIT/CHECKPOINT/PRUNER/SETTING.json`` below the folder of all benchmarks,
beside the answers, ``SETTING.jsonl``. A result states its setting; one that does not, as of a server, has that of the
answers.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, NamedTuple

from tqdm import tqdm

from llava.asking.losses import count_losses
from llava.eval.results.budgets import Kept
from llava.eval.results.made import made_with
from llava.eval.results.metadata import read_metadata
from llava.eval.results.profile import Profile, profile_of
from llava.eval.results.setting import Setting
from llava.eval.tasks import TASKS
from llava.records import InputError, check_record, local_path, read_json

logger = logging.getLogger(__name__)

PATTERN = "*/answers/*/*/*/*.json"
RESULT_KEYS = {"benchmark": str, "metric": str, "value": (int, float), "count": int}
OPTIONAL_KEYS = {"missing": int, "ci95": (list, NoneType), "setting": dict, "scores": dict}


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
class Measurement:
    """One result.

    Args:
        setting: what it was measured with.
        column: the benchmark's name, with its split where that is not the usual one.
        visual_tokens: mean number of visual tokens that the language model read; None if the answers do not say.
        ci95: interval of the value, None if the result has none.
        unanswered: questions without an answer.
        kept: how much was kept, where that is more than one number.
        profile: how long answering took, None unless it ran with ``--profile``.
        lost: how many questions lost something on their way, by the names of ``llava.asking.losses``.
        scores: of every question in [0, 1]; empty where the result does not say.
        made: when, where and with which software, as ``made_with`` has it.
    """

    group: Group
    setting: Setting
    column: str
    value: float
    count: int
    ci95: tuple[float, float] | None
    unanswered: int
    visual_tokens: float | None
    path: Path
    kept: Kept | None = None
    profile: Profile | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)


def collect(eval_dir: str | Path, named: str = "--eval-dir") -> list[Measurement]:
    """Every result below ``eval_dir``, which errors call what it is ``named``.

    Raises:
        InputError: no such folder, no result in it, or a result that is broken; names the file.
    """
    base = local_path(eval_dir)
    if not base.is_dir():
        raise InputError(f"{named} {eval_dir}: no such folder")
    paths = sorted(base.glob(PATTERN))
    found = [each for path in tqdm(paths, unit="result", leave=False, disable=None) for each in measured_in(path)]
    if not found:
        raise InputError(
            f"{named} {eval_dir}: no results in it; the scripts in scripts/v1_5/eval write them, as "
            "BENCHMARK/answers/SPLIT/CHECKPOINT/PRUNER/SETTING.json"
        )
    return found


def measured_in(path: Path) -> Iterator[Measurement]:
    """The measurement in a file, or nothing if the file is something else.

    Raises:
        InputError: a result that is broken.
    """
    result = read_json(path, (dict, list))
    if not isinstance(result, dict) or "benchmark" not in result:
        logger.info("not a result, left out: %s", path)
        return
    metadata = _metadata(answers := path.with_suffix(".jsonl"))
    if "setting" not in result and not (metadata and "pruner" in metadata[0]):
        logger.warning("left out, as neither it nor answers beside it say what it was measured with: %s", path)
        return
    check_record(result, str(path), RESULT_KEYS, OPTIONAL_KEYS)
    if not math.isfinite(result["value"]):
        raise InputError(f"{path}: its value is {result['value']}; score the answers again")
    split, checkpoint = path.parts[-4:-2]
    if "setting" in result:
        setting = Setting.read(result["setting"], f"{path}, setting")
    else:
        setting = Setting.of(metadata[0], checkpoint, result["benchmark"])
    tokens = [entry["visual_tokens"] for entry in metadata if "visual_tokens" in entry]
    yield Measurement(
        group=Group(checkpoint, setting.layout, setting.variant),
        setting=setting,
        column=_column(result["benchmark"], split),
        value=float(result["value"]),
        count=result["count"],
        ci95=_interval(result.get("ci95"), path),
        unanswered=result.get("missing", 0),
        visual_tokens=fmean(tokens) if tokens else None,
        kept=Kept.of(metadata),
        path=path,
        profile=profile_of(metadata),
        lost=count_losses({"metadata": entry} for entry in metadata),
        scores=_scores(result.get("scores", {}), path),
        made=made_with(answers, metadata[0] if metadata else {}),
    )


def _scores(scores: dict[str, Any], path: Path) -> dict[str, float]:
    return check_record(scores, f"{path}, scores", dict.fromkeys(scores, (int, float)))


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
