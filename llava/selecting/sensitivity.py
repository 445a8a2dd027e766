"""How much a projector's output moves with its input, token by token, whatever dtype the model has."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llava.pruners.functional import finite
from llava.selecting.options import PruningOptions
from llava.selecting.relevance import full_precision

DIRECTIONS, STEP, SEED = 64, 0.01, 0  # unless a pruner asks for others
LARGEST_LIMIT = 0.01  # of h, up to which differences are computed in the limit
TOKENS_AT_ONCE = 512
DIRECTIONS_AT_ONCE = 8


def random_directions(count: int, width: int, seed: int) -> Tensor:
    """Directions at random, (count, width) float32 of unit length on the CPU, the same wherever they are used."""
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def directions_of(options: PruningOptions, width: int) -> Tensor | None:
    """The directions (m, width) in which a pruner asks for sensitivity; None for one that does not read it."""
    if "sensitivity" not in options.needs:
        return None
    asked = options.chooser.asks("sensitivity")
    return random_directions(asked.get("directions", DIRECTIONS), width, asked.get("seed", SEED))


@torch.no_grad()
def sensitivity(project: Callable[[Tensor], Tensor], features: Tensor, directions: Tensor, h: float = 0.01) -> Tensor:
    """The mean over directions u of the length of M(x + h u) - M(x - h u) over 2 h, for every token x.

    Up to h = 0.01 it is computed in the limit of a small h: by the derivative of the projector in each direction. That
    chooses the same tokens, has no rounding of a difference, which is a few 1e-5 there, and takes little more than half
    of the products, since all directions of a token share the projector's way to it.

    Args:
        project: M, the projector, from (R, C) float32 to a row of its output for each. A module is computed with
            float32 copies of its weights, and is itself left alone.
        features: (B, N, C), values possibly not finite; an entry that is not counts as zero.
        directions: (m, C) on any device.
        h: of the differences, above 0.

    Returns:
        (B, N) float32. A tile's values do not depend on the tiles beside it.

    Raises:
        ValueError: when the projector does not make one row of each token.
    """
    if isinstance(project, nn.Module):
        project = in_float32(project)
    directions = directions.to(features.device, torch.float32)
    with full_precision(features.device.type):
        return torch.stack([_of_tile(project, finite(tile.float()), directions, h) for tile in features])


def _of_tile(project: Callable[[Tensor], Tensor], tile: Tensor, directions: Tensor, h: float) -> Tensor:
    """As ``sensitivity``, of one tile, (N, C) -> (N,); memory is that of a few directions of a few hundred tokens."""
    return torch.cat([_of_tokens(project, few, directions, h) for few in tile.split(TOKENS_AT_ONCE)])


def _of_tokens(project: Callable[[Tensor], Tensor], tokens: Tensor, directions: Tensor, h: float) -> Tensor:
    def moved(direction: Tensor) -> Tensor:
        if h <= LARGEST_LIMIT:
            rows = torch.func.jvp(project, (tokens,), (direction.expand_as(tokens),))[1]
        else:
            rows = (project(tokens + h * direction) - project(tokens - h * direction)) / (2 * h)
        if rows.shape[:-1] != tokens.shape[:1]:
            shapes = f"{tuple(rows.shape)} of {tuple(tokens.shape)}"
            raise ValueError(f"a projector that makes {shapes} does not take tokens one by one")
        return rows.norm(dim=-1)

    lengths = [torch.func.vmap(moved)(few) for few in directions.split(DIRECTIONS_AT_ONCE)]  # each (few, R)
    return torch.cat(lengths).mean(dim=0)


def in_float32(module: nn.Module) -> nn.Module:
    """The module with float32 copies of its weights where they are of another precision; it is left as it is.

    Nothing that was hooked to the module or put in the place of its ``forward`` comes along: it is not the model's.
    """
    twin: Any = copy.copy(module)  # shares all that is not replaced below
    twin._parameters = {name: _raised(weight) for name, weight in module._parameters.items()}
    twin._buffers = {name: _raised(value) for name, value in module._buffers.items()}
    twin._modules = {name: None if part is None else in_float32(part) for name, part in module._modules.items()}
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        setattr(twin, hooks, OrderedDict())
    vars(twin).pop("forward", None)
    return twin


def _raised(value: Tensor | None) -> Tensor | None:
    return value.detach().float() if value is not None and value.is_floating_point() else value
