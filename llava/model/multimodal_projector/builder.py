"""The projector: vision features to the language model's width."""

import re

from torch import Tensor, nn
from transformers import PretrainedConfig


class IdentityMap(nn.Module):
    """Passes the vision features through, for encoders that already speak the language model's width."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def projector_depth(kind: str) -> int:
    """Return how many linear layers ``mm_projector_type`` has; ValueError for an unknown one."""
    if kind in ("identity", "linear"):
        return int(kind == "linear")
    if isinstance(kind, str) and (match := re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)):
        return int(match[1])
    raise ValueError(f"mm_projector_type {kind!r} in the config is not one of linear, mlp<n>x_gelu, identity")


def build_vision_projector(config: PretrainedConfig) -> nn.Module:
    """Build ``config.mm_projector_type``: ``linear``, ``mlp<n>x_gelu`` or ``identity``."""
    kind = getattr(config, "mm_projector_type", "linear")
    depth = projector_depth(kind)
    if depth == 0:
        return IdentityMap()
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
    if kind == "linear":
        return layers[0]
    for _ in range(1, depth):
        layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
    return nn.Sequential(*layers)
