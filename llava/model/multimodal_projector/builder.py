"""The projector: vision features to the language model's width."""

import re

from torch import Tensor, nn
from transformers import PretrainedConfig


class IdentityMap(nn.Module):
    """Passes the vision features through, for encoders that already speak the language model's width."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def build_vision_projector(config: PretrainedConfig) -> nn.Module:
    """Build ``config.mm_projector_type``: ``linear``, ``mlp<n>x_gelu`` or ``identity``."""
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "identity":
        return IdentityMap()
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    if match := re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind):
        layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
        for _ in range(1, int(match[1])):
            layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
        return nn.Sequential(*layers)
    raise ValueError(f"mm_projector_type {kind!r} in the config is not one of linear, mlp<n>x_gelu, identity")
