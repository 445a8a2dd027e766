"""How many tokens images keep where that depends on what they show: measured from cues before any is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from llava.pruners import VisualCues
from llava.pruners.eadp import EADP, importance
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual, budget_of, parts_of
from llava.selecting.split import quotas_of

SLACK = 1e-6  # by which a sum of shares may miss the mass: cues are rounded to float32

Measured = dict[str, Tensor]


@dataclass(frozen=True)
class Budget:
    """What an image may keep.

    Args:
        per_tile: k, tokens of a tile on average, at most those that it has; a part with fewer keeps what it has.
        tiles: how many the image has.
        parts: tokens kept of each part that is chosen from.
        tokens: that there are of all parts.
        erank: effective rank of its tokens, where that decided.
    """

    per_tile: int
    tiles: int
    parts: list[int]
    tokens: int
    erank: float | None = None

    @property
    def kept(self) -> int:
        """Tokens that are kept of all parts."""
        return sum(self.parts)

    def described(self) -> dict[str, Any]:
        """As records state it: ``k``, ``tiles``, ``kept``, ``tokens``, and ``parts`` where these are unlike."""
        found = {"k": self.per_tile, "tiles": self.tiles, "kept": self.kept, "tokens": self.tokens}
        found |= {} if len({*self.parts}) == 1 else {"parts": self.parts}
        return found if self.erank is None else found | {"erank": round(self.erank, 4)}


@torch.no_grad()
def budgets_of(options: PruningOptions, visuals: Sequence[Visual]) -> list[Budget]:
    """Measure what each image may keep. What is measured is read back from the device, once for all images.

    Args:
        options: whose budget is not fixed, or split by importance.
        visuals: with the cues in ``options.budget_needs``.

    Raises:
        ValueError: such a cue is missing, or a budget is to be split among what are no tiles of one size.
    """
    measured = _fetched([_measure(options, visual) for visual in visuals])
    return [_budget(options, *each) for each in zip(visuals, measured, strict=True)]


def _measure(options: PruningOptions, visual: Visual) -> Measured:
    """What decides about an image, of any shapes: of its budget, and of the weights of its tiles."""
    found = {}
    if options.budget == "spectral":
        found["gram"], found["energy"] = centred_gram(_tokens(visual, "embeds", "spectral"))
    if options.budget == "mass":
        relevance = _tokens(visual, "relevance", "mass") if "relevance" in visual.cues else None
        found["count"] = mass_count(_tokens(visual, "cls_attention", "mass"), relevance, options.mass)
    parts = [] if options.budget_split == "even" else parts_of(options.chooser, visual, options.budget_scope)
    if len(parts) > 1:
        _check_tiles(parts)
        if (weights := _weights(options, visual, parts)) is not None:
            found["weights"] = weights
    return found


def _fetched(measured: Sequence[Measured]) -> list[Measured]:
    """The same on the CPU, in one copy."""
    flat = [value.double().flatten() for found in measured for value in found.values()]
    if not flat:
        return list(measured)
    together = iter(torch.cat([each.to(flat[0].device) for each in flat]).cpu().split([*map(len, flat)]))
    return [{name: next(together).view(value.shape) for name, value in found.items()} for found in measured]


def _budget(options: PruningOptions, visual: Visual, measured: Measured) -> Budget:
    pruner, erank = options.chooser, None
    parts, wanted = parts_of(pruner, visual, options.budget_scope), pruner.visual_token_num
    if wanted is None or options.budget == "fixed":
        kept = [budget_of(pruner, part) for part in parts]
        per_tile = round(sum(kept) / visual.tiles) if wanted is None else wanted
    elif options.budget == "spectral":
        assert options.erank_ref is not None  # they are completed
        erank = erank_of(measured["gram"], measured["energy"])
        per_tile = spectral_budget(erank, options.erank_ref, wanted)
    else:
        per_tile = bounded(ceil(int(measured["count"]) / visual.tiles), wanted)
    if options.budget != "fixed":
        per_tile = min(per_tile, max((ceil(len(part.positions) / part.tiles) for part in parts), default=per_tile))
        kept = [min(len(part.positions), per_tile * part.tiles) for part in parts]
    if "weights" in measured and sum(kept) >= len(parts):
        kept = quotas_of(measured["weights"].tolist(), len(parts[0].positions), sum(kept))
    return Budget(per_tile, visual.tiles, kept, sum(len(part.positions) for part in parts), erank)


def bounded(count: int, wanted: int) -> int:
    """A number of tokens per tile within the bounds of budgets that follow the picture: a quarter to three times T."""
    return min(max(count, ceil(wanted / 4)), 3 * wanted)


def spectral_budget(erank: float, erank_ref: float, wanted: int) -> int:
    """Tokens per tile of an image whose effective rank is ``erank``, where T = ``wanted`` belongs to ``erank_ref``."""
    return bounded(round(wanted * erank / erank_ref), wanted)


def effective_rank(tokens: Tensor) -> float:
    """Exponential of the entropy of the singular values of centred tokens, each as a share of their sum.

    Tokens that all lie in one direction from their mean have 1, as have tokens that are all the same; N orthonormal
    ones have N - 1.

    Args:
        tokens: (N, D); an entry that is not finite counts as zero.
    """
    gram, energy = centred_gram(tokens)
    return erank_of(gram.cpu(), energy.cpu())


def centred_gram(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller of the two Gram matrices of centred tokens, and the sum of the squares of tokens as they are.

    Computed in float64, by N * D * min(N, D) products; nothing is read back.

    Args:
        tokens: (N, D); an entry that is not finite counts as zero.

    Returns:
        (M, M) with M = min(N, D), and (), on the device of the tokens, or on the CPU where it has no such numbers.
    """
    values = _double(tokens).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    energy = values.square().sum()
    if len(values):
        values = values - values.mean(dim=0)
    return values @ values.T if values.shape[0] <= values.shape[1] else values.T @ values, energy


def erank_of(gram: Tensor, energy: Tensor) -> float:
    """``effective_rank`` from what ``centred_gram`` returns, on the CPU."""
    squares = torch.linalg.eigvalsh(gram)
    rounding = len(squares) * torch.finfo(squares.dtype).eps * energy  # what is below it may as well be zero
    singular = torch.where(squares > rounding, squares, 0).sqrt()
    total = singular.sum()
    return float(torch.special.entr(singular / torch.where(total > 0, total, 1)).sum().exp())


def mass_count(attention: Tensor, relevance: Tensor | None, mass: float) -> Tensor:
    """The fewest tokens that hold a share ``mass`` of attention and relevance, half of each.

    Args:
        attention: (N,) of all tokens of an image; what is negative or not finite counts as zero.
        relevance: (N,) of the same, brought to 0 to 1 here, what is not finite to 0; without any, attention is all.
        mass: above 0, 1 at most.

    Returns:
        () float64.
    """
    shares = _shares(_double(attention))
    if relevance is not None:
        values = _double(relevance).to(shares.device)
        finite = values.isfinite()
        low = values.where(finite, torch.inf).amin()
        high = values.where(finite, -torch.inf).amax()
        shares = (shares + _shares((values - low) / (high - low))) / 2
    held = shares.sort(descending=True).values.cumsum(dim=0)
    return 1 + (held[:-1] < mass - SLACK).sum().double()


def _shares(values: Tensor) -> Tensor:
    """Each value as a share of their sum; even shares where that is nothing."""
    known = values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
    total = known.sum()
    return torch.where(total > 0, known / total, 1 / len(known))


def _tokens(visual: Visual, cue: str, budget: str) -> Tensor:
    """A cue of the image's own tokens, whatever pruners choose from: newline tokens are none."""
    if cue not in visual.cues:
        raise ValueError(f"budget {budget!r} needs the cue {cue}, which is not known of this image")
    return torch.cat([part.of(visual.cues[cue]) for part in visual.parts])


def _weights(options: PruningOptions, visual: Visual, parts: Sequence[Part]) -> Tensor | None:
    """The importance of each part, (parts,), as EADP has it by its options, its usual ones of another pruner; None
    without a question.
    """
    if "relevance" not in visual.cues:
        return None
    known = [name for name in ("relevance", "joint_embeds") if name in visual.cues]
    cues = {name: torch.stack([part.of(visual.cues[name]) for part in parts]) for name in known}
    if (text := visual.texts.get("text_sequence")) is not None:
        cues["text_sequence"] = text.expand(len(parts), *text.shape).to(cues["relevance"].device)
    by = options.pruner if isinstance(options.pruner, EADP) else EADP
    weighed = importance(VisualCues(None, None, **cues, grid=parts[0].grid), by.alpha, by.beta)
    return weighed.double().sum(dim=1)


def _check_tiles(parts: Sequence[Part]) -> None:
    if any(part.tiles != 1 for part in parts) or len({len(part.positions) for part in parts}) != 1:
        raise ValueError(
            "budget_split 'importance' splits a budget among tiles of one size, and this image is laid out otherwise: "
            'anyres="fixed" keeps tiles whole'
        )


def _double(values: Tensor) -> Tensor:
    """In float64; on the CPU where the device has no such numbers."""
    return (values.cpu() if values.device.type == "mps" else values).double()
