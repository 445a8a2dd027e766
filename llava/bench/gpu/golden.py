"""Part ``golden``: whether the pruners choose on this device what the official code chose on a CPU in float32."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from llava.bench.gpu.setting import TESTS, Rows, Setting, Wrong
from llava.pruners import PRUNERS, VisualCues
from llava.pruning.prompts import text_relevance
from llava.selecting.relevance import unit

GOLDEN = TESTS / "golden"
Case = dict[str, Tensor]


def cdpruner(case: Case) -> Tensor:
    theta = None if case["theta"].isnan() else case["theta"].item()
    cues = VisualCues(features=None, embeds=case["features"], relevance=_relevance(case))
    return PRUNERS["cdpruner"](int(case["T"]), theta=theta)(cues)


def divprune(case: Case) -> Tensor:
    cues = VisualCues(features=None, embeds=case["features"].unsqueeze(0))
    return PRUNERS["divprune"](keep_ratio=case["ratio"].item())(cues)


def vispruner(case: Case) -> Tensor:
    cues = VisualCues(features=case["features"], embeds=None, cls_attention=case["cls_attention"].mean(dim=1))
    return PRUNERS["vispruner"](int(case["T"]), important_ratio=case["important_ratio"].item())(cues)


def mfpruner(case: Case) -> Tensor:
    attention = case["cls_attention"].mean(dim=1)
    cues = VisualCues(features=None, embeds=case["features"], cls_attention=attention, relevance=_relevance(case))
    return PRUNERS["mfpruner"](int(case["T"]))(cues)


def mfpruner_qwen(case: Case) -> Tensor:
    embeds, attention = case["image_embeds"], case["received_attention"]
    relevance = text_relevance(embeds, case["text_rows"])  # (N,)
    cues = VisualCues(None, embeds.unsqueeze(0), attention.unsqueeze(0), relevance.unsqueeze(0))
    return PRUNERS["mfpruner"](keep_ratio=1 - case["prune_ratio"].item(), cues="qwen_release")(cues)


CHOOSE: dict[str, Callable[[Case], Tensor]] = {
    choose.__name__: choose for choose in (cdpruner, divprune, vispruner, mfpruner, mfpruner_qwen)
}


def _relevance(case: Case) -> Tensor:
    return -(unit(case["image_embeds"]) @ unit(case["text_embeds"]).T).mean(dim=-1)  # (B, N)


def files() -> list[Path]:
    """Every recorded selection of these methods."""
    begin = tuple(f"{method}_" for method in CHOOSE)
    return sorted(path for path in GOLDEN.glob("*.npz") if path.name.startswith(begin))


def load(path: Path, device: torch.device) -> tuple[str, Case]:
    """The method of a file and its arrays on a device."""
    import numpy as np

    with np.load(path) as arrays:
        numbers = {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fi"}
        return arrays["algo"].item(), {name: number.to(device) for name, number in numbers.items()}


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """A row per file."""
    different = []
    for path in files():
        method, case = load(path, setting.where)
        chosen = CHOOSE[method](case)
        equal = torch.equal(chosen, case["indices"])
        different += [] if equal else [path.stem]
        yield {"method": method, "file": path.stem, "equal": equal}
    if not files():
        raise Wrong(f"{GOLDEN}: no selections to compare with")
    if different:
        raise Wrong(f"{len(different)} of {len(files())} selections differ: {', '.join(different)}")
