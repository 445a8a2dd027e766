"""Run recorded selections through the public interface: ``python tests/check_golden.py FOLDER``.

Prints every file that does not come out as recorded, then ``n/m golden selections``, and ends with 1 unless all do.
What official code cuts in the order of a Python set (``compatonly``) is no expectation and is left out. Of methods that
add one token after another, the order is compared as well, by smaller budgets.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # what is checked is this checkout, whatever is installed

from llava.pruners import Pruner, VisualCues, name_of, resolve_pruner

Case = dict[str, Any]
Made = tuple[dict[str, Any], VisualCues]
FEW = 40  # picks whose order is looked at one by one; of more, at these and at every sixteenth


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def relevance(case: Case) -> Tensor:
    return -(unit(case["image_embeds"]) @ unit(case["text_embeds"]).T).mean(dim=-1)  # (B, N)


def each_tile(text: Tensor, tiles: int) -> Tensor:
    return text.expand(tiles, *text.shape)


def cdpruner(case: Case) -> Made:
    theta = None if case["theta"].isnan() else case["theta"].item()
    return {"theta": theta}, cues(embeds=case["features"], relevance=relevance(case))


def divprune(case: Case) -> Made:
    return {"keep_ratio": case["ratio"].item()}, cues(embeds=case["features"].unsqueeze(0))


def vispruner(case: Case) -> Made:
    given = cues(features=case["features"], cls_attention=case["cls_attention"].mean(dim=1))
    return numbers(case, "important_ratio"), given


def mfpruner(case: Case) -> Made:
    attention = case["cls_attention"].mean(dim=1)
    return {}, cues(embeds=case["features"], cls_attention=attention, relevance=relevance(case))


def mfpruner_qwen(case: Case) -> Made:
    from llava.pruning.prompts import text_relevance

    rows = {"cls_attention": case["received_attention"], "embeds": case["image_embeds"]}
    rows["relevance"] = text_relevance(case["image_embeds"], case["text_rows"])
    options = {"keep_ratio": 1 - case["prune_ratio"].item(), "cues": "qwen_release"}
    return options, cues(**{name: row.unsqueeze(0) for name, row in rows.items()})


def cen_divprune(case: Case) -> Made:
    given = {"embeds": case["embeds"]}
    if str(case["form"]) == "qwen":
        given["premerger"] = case["embeds"]
    return {"centered": True}, cues(**given)


def cen_cdpruner(case: Case) -> Made:
    options, given = cen_divprune(case)
    return options, replace(given, relevance=case["relevance"])


def scope(case: Case) -> Made:
    given = cues(features=case["features"], cls_attention=case["cls_attention"].mean(dim=1))
    return numbers(case, "alpha"), given


def mmtok(case: Case) -> Made:
    features = case["features"]
    given = {"features": features, "embeds": case["embeds"]}
    given["text_tokens"] = each_tile(case["text_tokens"], len(features))
    if "exclude" in case:
        given["padding"] = features.new_zeros(features.shape[:2]).index_fill(1, case["exclude"], 1.0)
    return numbers(case, "tau_tv", "tau_vv", "alpha"), cues(**given)


def eadp(case: Case) -> Made:
    given = {"embeds": case["embeds"], "joint_embeds": case["image_embeds"], "relevance": relevance(case)}
    given["text_sequence"] = each_tile(case["text_sequence"], len(case["embeds"]))
    return numbers(case, "alpha", "beta"), cues(**given)


def holov(case: Case) -> Made:
    given = cues(embeds=case["embeds"], cls_attention=case["cls_attention"].mean(dim=1))
    return numbers(case, "num_patches", "alpha"), given


def prunesid(case: Case) -> Made:
    return {}, cues(features=case["features"], cls_attention=case["cls_attention"].mean(dim=1))


def hiprune(case: Case) -> Made:
    given = {name: case[name] for name in ("object_attention", "deep_attention")}
    return numbers(case, "alpha", "object_layer"), cues(**given)


def zoo_prune(case: Case) -> Made:
    from llava.selecting.sensitivity import sensitivity

    def project(features: Tensor) -> Tensor:
        hidden = torch.nn.functional.gelu(features @ case["w1"].T + case["b1"])
        return hidden @ case["w2"].T + case["b2"]

    made = sensitivity(project, case["features"], case["directions"], case["h"].item())
    options = {"directions": len(case["directions"]), **numbers(case, "h")}
    return options, cues(embeds=project(case["features"]), sensitivity=made)


def zoo_prune_cen(case: Case) -> Made:
    options, given = zoo_prune(case)
    return options | {"centered": True}, given


def numbers(case: Case, *names: str) -> dict[str, Any]:
    """Options of a case."""
    return {name: case[name].item() for name in names}


def cues(**given: Tensor) -> VisualCues:
    return VisualCues(**{"features": None, "embeds": None} | given)


EACH = (cdpruner, divprune, vispruner, mfpruner, mfpruner_qwen, cen_cdpruner, cen_divprune, scope, mmtok, eadp, holov)
EACH += (prunesid, hiprune, zoo_prune, zoo_prune_cen)
MAKE: dict[str, Callable[[Case], Made]] = {make.__name__: make for make in EACH}
"""From a case of each method to the options of its pruner and the cues that it chooses by."""
NESTED = {
    "cdpruner",
    "divprune",
    "cen_cdpruner",
    "cen_divprune",
    "scope",
    "mmtok",
    "eadp",
    "zoo_prune",
    "zoo_prune_cen",
}
"""Methods that add one token after another, so that what fewer tokens choose is the beginning of the order."""


def prepared(algo: str, case: Case) -> tuple[Pruner, VisualCues]:
    """The pruner of a case and what it is told."""
    options, given = MAKE[algo](case)
    budget = {} if "keep_ratio" in options else {"visual_token_num": int(case["T"])}
    name = algo.removeprefix("cen_").removesuffix("_cen").removesuffix("_qwen")
    return resolve_pruner(name, **budget, **options), given


def load(path: Path) -> tuple[str, Case]:
    """The method of a file and its arrays."""
    with np.load(path) as arrays:
        numbers = {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fib"}
        words = {name: arrays[name] for name in arrays if name not in numbers}
    return str(words.pop("algo")), numbers | words


def selection(algo: str, case: Case) -> Iterator[str]:
    """What differs from a recorded selection."""
    pruner, given = prepared(algo, case)
    expected = case.get("indices_exact", case["indices"])
    found = pruner(given)
    if not torch.equal(found, expected):
        missed = [sorted(set(e) - set(f)) for e, f in zip(expected.tolist(), found.tolist(), strict=False)]
        yield f"other tokens, expected and not kept, of each tile: {missed}"
    elif algo in NESTED and case["order_reliable"]:
        yield from order(pruner, given, case["order"], expected.shape[1])
    if "keep_mask_exact" in case:
        yield from split(pruner, given, case)


def order(pruner: Pruner, given: VisualCues, order: Tensor, budget: int) -> Iterator[str]:
    """The budget at which what is kept is not the beginning of the order."""
    for count in range(1, budget):
        if count > FEW and count % 16:
            continue
        if not torch.equal(pruner.with_budget(count)(given), order[:, :count].sort(dim=1).values):
            yield f"another order up to pick {count}"
            return


def split(pruner: Pruner, given: VisualCues, case: Case) -> Iterator[str]:
    """What differs where the budgets of an image's tiles follow their importance."""
    quotas = import_module("llava.selecting.split").quotas
    importance = import_module(f"llava.pruners.{name_of(pruner)}").importance
    tiles, tokens = given.shape
    shares = quotas(importance(given, pruner.alpha, pruner.beta), tiles * int(case["T"]))
    if list(shares) != case["quotas_exact"].tolist():
        yield f"quotas {list(shares)}, not {case['quotas_exact'].tolist()}"
    mask = torch.zeros(tiles, tokens, dtype=torch.bool)
    for tile, share in enumerate(shares):
        mask[tile, pruner.with_budget(share)(given)[tile]] = True
    if not torch.equal(mask, case["keep_mask_exact"]):
        yield "other tokens where budgets follow importance"


def anyres(case: Case) -> Iterator[str]:
    """What differs in the order of the kept tokens of images of several tiles."""
    from llava.model.tiles import reading_order

    patches = case["keep_mask"].shape[1]
    merge_type = str(case["merge_type"]).removesuffix("_unpad")  # the releases never unpad
    keep, first, orders = case["keep_mask"].flatten(), 0, []
    for tiles, grid in zip(case["crops_per_image"].tolist(), case["grid_wh"].tolist(), strict=True):
        read = reading_order(tiles, patches, merge_type, tuple(grid)) + first * patches
        orders.append(read[keep[read]])
        first += tiles
    if [len(read) for read in orders] != case["lengths"].tolist():
        yield "other lengths"
    elif not torch.equal(torch.cat(orders), case["order"]):
        yield "another order"


def mmtok_text(case: Case) -> Iterator[str]:
    """Questions of which something else is left."""
    from llava.selecting.words import keywords, strip_question, words

    texts = zip(*(case[name].tolist() for name in ("question", "stripped", "keywords", "words")), strict=True)
    for question, stripped, kept, each in texts:
        found = strip_question(question), keywords(stripped), "\x1f".join(words(question))
        if found != (stripped, kept, each):
            yield f"of {question!r} {found}, not {(stripped, kept, each)}"


def mmtok_padding(case: Case) -> Iterator[str]:
    """Sizes of pictures with another border."""
    from llava.selecting.padding import padding_patches

    for size, border in zip(case["image_size"].tolist(), case["padding"], strict=True):
        if not torch.equal(padding_patches(tuple(size)), border):
            yield f"another border of a picture of {size[0]} x {size[1]}"


OTHERS: dict[str, Callable[[Case], Iterator[str]]] = {
    differs.__name__: differs for differs in (anyres, mmtok_text, mmtok_padding)
}


def misses(path: Path) -> list[str]:
    """What differs from what a file records, none where nothing does."""
    try:
        algo, case = load(path)
    except Exception as error:
        return [f"cannot be read, {told(error)}"]
    try:
        if algo in OTHERS:
            return list(OTHERS[algo](case))
        if algo not in MAKE:
            return [f"nobody knows the method {algo!r}"]
        return list(selection(algo, case))
    except Exception as error:  # whatever is wrong with one file, the others are looked at
        return [told(error)]


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def files(folder: Path) -> list[Path]:
    """Every recorded selection of a folder."""
    return sorted(path for path in folder.glob("*.npz") if "compatonly" not in path.name)


def main(arguments: list[str]) -> int:
    """Check a folder; returns the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(f"usage: python tests/check_golden.py FOLDER (of .npz files), not {' '.join(arguments)!r}")
        return 2
    found = files(Path(arguments[0]))
    right = 0
    for path in found:
        missed = misses(path)
        right += not missed
        for what in missed:
            print(f"{path.name}: {what}")
    print(f"{right}/{len(found)} golden selections")
    return int(right < len(found) or not found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
