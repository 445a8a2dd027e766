"""What the metadata of answers say, checked: files of answers pass through many hands."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from llava.eval.results.profile import KEYS as STAGES
from llava.eval.results.profile import MEMORY
from llava.records import Types, check_record, read_jsonl

NUMBER = (int, float)
ENTRIES = {"visual_tokens": NUMBER, "latency_ms": NUMBER, "pruner": str, "options": dict, "run": dict, "profile": dict}
ENTRIES |= {"budgets": list[dict], "tokens_before": NUMBER}
FILES: Types = {"checkpoint": str}
VERSIONS: Types = {"llava": str, "torch": str, "transformers": str, "python": str}
HELD: Types = {name: NUMBER for name in MEMORY}
OF_BUDGETS = {"budget": str, "budget_split": str, "erank_ref": NUMBER, "mass": NUMBER}
BUDGET = {"k": NUMBER, "tiles": int, "kept": NUMBER}
NAMES = ("anyres", "attention", "attention_implementation", "budget_scope", "conv_mode", "dtype", "model_base")
RUN = dict.fromkeys((*NAMES, "model_path", "positions", "text_chunking", "vision_dtype"), str)
RUN |= {"commit": (str, NoneType), "versions": dict, "files": dict, "limit": int}
RUN |= {"max_new_tokens": int, "num_beams": int, "prune_layer": int, "temperature": NUMBER}


def check_metadata(answer: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The ``metadata`` of an answer's line, empty where it says nothing.

    Args:
        where: what an error calls the line, such as its file and number.

    Raises:
        InputError: an entry that programs go by is of another type.
    """
    metadata = check_record(answer.get("metadata") or {}, f"{where}, metadata", {}, ENTRIES)
    check_record(metadata.get("run", {}), f"{where}, metadata, run", {}, RUN | OF_BUDGETS)
    check_record(metadata.get("run", {}).get("versions", {}), f"{where}, metadata, run, versions", {}, VERSIONS)
    check_record(metadata.get("run", {}).get("files", {}), f"{where}, metadata, run, files", {}, FILES)
    check_record(metadata.get("options", {}), f"{where}, metadata, options", {}, {"seed": int})
    for budget in metadata.get("budgets", ()):
        check_record(budget, f"{where}, metadata, budgets", BUDGET)
    if "profile" in metadata:
        check_record(metadata, f"{where}, metadata", {"latency_ms": NUMBER})
        check_record(
            metadata["profile"], f"{where}, metadata, profile", dict.fromkeys(STAGES, (*NUMBER, NoneType)), HELD
        )
    return metadata


def read_metadata(path: str | Path) -> list[dict[str, Any]]:
    """``check_metadata`` for every line of an answers file.

    Raises:
        InputError: it cannot be read, or a line is of another form; names file and answer.
    """
    return [check_metadata(line, f"{path}, answer {number}") for number, line in enumerate(read_jsonl(path, {}), 1)]
