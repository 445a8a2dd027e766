"""How much was kept where that is more than one number: of images by what they show, and of a model's layers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Kept:
    """Tokens kept per tile.

    Args:
        mean: over all tiles; None where every tile has the same by its setting.
        quantiles: over images, at ``QUANTILES``.
        over_layers: mean over the layers of the language model of all visual tokens that they read; None where all of
            them read as many, or the checkpoint is not here to say how many there are.
    """

    mean: float | None
    quantiles: tuple[float, ...] | None
    over_layers: float | None

    @classmethod
    def of(cls, metadata: Iterable[Mapping[str, Any]]) -> "Kept | None":
        """Summarise the ``metadata`` of answers; None where they have neither."""
        metadata = list(metadata)
        paths = {run["model_path"] for run in map(_run, metadata) if run.get("prune_layer") and "model_path" in run}
        known = {path: layers_of(path) for path in paths}
        images = [budget for entry in metadata for budget in entry.get("budgets", ())]
        means = ((mean_over_layers(entry, known.get(_run(entry).get("model_path")))) for entry in metadata)
        layers = [mean for mean in means if mean is not None]
        if not (images or layers):
            return None
        tiles, shares = sum(each["tiles"] for each in images), [each["kept"] / each["tiles"] for each in images]
        return cls(
            sum(each["kept"] for each in images) / tiles if images else None,
            tuple(quantile(shares, share) for share in QUANTILES) if images else None,
            fmean(layers) if layers else None,
        )

    @classmethod
    def mean_of(cls, found: Sequence["Kept | None"]) -> "Kept | None":
        """The means of several, such as seeds or benchmarks; None where there are none."""
        known = [each for each in found if each is not None]
        means = [each for each in known if each.mean is not None]
        layers = [each.over_layers for each in known if each.over_layers is not None]
        if not known:
            return None
        return cls(
            fmean(each.mean for each in means) if means else None,
            tuple(map(fmean, zip(*(each.quantiles for each in means), strict=True))) if means else None,
            fmean(layers) if layers else None,
        )

    def __str__(self) -> str:
        shown = [f"{number:.1f}" for number in (self.mean, *(self.quantiles or ())) if number is not None]
        said = (
            [f"tokens per tile: {shown[0]} on average; 5, 50 and 95 % of images: {', '.join(shown[1:])}"]
            if shown
            else []
        )
        said += [] if self.over_layers is None else [f"{self.over_layers:.1f} visual tokens on average over layers"]
        return "; ".join(said)


def mean_over_layers(metadata: Mapping[str, Any], layers: int | None) -> float | None:
    """Visual tokens that one of so many layers read on average, of one answer.

    None where tokens went before the first layer, or the answer does not say how many there were.
    """
    first = _run(metadata).get("prune_layer")
    if not first or not layers or not {"visual_tokens", "tokens_before"} <= metadata.keys():
        return None
    return (first * metadata["tokens_before"] + (layers - first) * metadata["visual_tokens"]) / layers


def layers_of(checkpoint: str) -> int | None:
    """How many layers the language model of a checkpoint has; None where its config is not here, or does not say."""
    try:
        folder = Path(checkpoint).expanduser()
        file = folder / "config.json" if folder.is_dir() else Path(try_to_load_from_cache(checkpoint, "config.json"))
        config = json.loads(file.read_bytes())
        if (said := (config.get("text_config") or config).get("num_hidden_layers")) is not None:
            return int(said)
        return AutoConfig.from_pretrained(file.parent).get_text_config().num_hidden_layers  # its class has a default
    except (AttributeError, HFValidationError, KeyError, OSError, TypeError, ValueError):
        return None


def _run(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return metadata.get("run", {})


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least a ``share`` of them do not exceed."""
    return sorted(values)[max(ceil(share * len(values)), 1) - 1]
