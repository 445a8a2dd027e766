"""How long the stages of answering took, as ``--profile`` records it in the answers' metadata."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from llava.model.stages import STAGES
from llava.utils import is_noisy

PER_TOKEN = "decode_ms_per_token"
KEYS = (*(f"{stage}_ms" for stage in STAGES), PER_TOKEN)
MEMORY = ("kv_mb", "peak_mb")
NOISE_NOTE = (
    "Noisy: of questions with as many tiles and visual tokens, the median took more than 1.3 times the shortest to the "
    "first token, so something else was in the way."
)


@dataclass(frozen=True)
class Profile:
    """Means over questions, first batches left out.

    Args:
        count: questions.
        stages: milliseconds by the keys of ``KEYS``, a question's share of its batch; None where no question has any.
        latency_ms: milliseconds of the whole call, likewise shared; what is in no stage is tokens, splicing and the
            choice of the next token.
        noisy: whether something else was in the way, by the benchmark's measure: ``is_noisy`` of what questions with as
            many tiles and visual tokens take to the first token.
        kv_mb: MiB of a question's visual tokens in the cache of keys and values, None where it was not recorded.
        peak_mb: the most MiB that were held at once, as ``llava.model.memory.peak_mb`` has it, None likewise.
    """

    count: int
    stages: Mapping[str, float | None]
    latency_ms: float
    noisy: bool = False
    kv_mb: float | None = None
    peak_mb: float | None = None

    @property
    def questions_per_second(self) -> float:
        """Throughput of one process, image files read elsewhere."""
        return 1000 / self.latency_ms

    def __str__(self) -> str:
        taken = ", ".join(f"{stage} {self.stages[f'{stage}_ms']:.1f}" for stage in STAGES)
        per_token = "" if self.stages[PER_TOKEN] is None else f" ({self.stages[PER_TOKEN]:.1f} per token)"
        return (
            f"milliseconds per question, over {self.count}: {taken}{per_token}, all {self.latency_ms:.1f}; "
            f"{self.questions_per_second:.1f} questions per second{' (noisy)' if self.noisy else ''}"
        )


def share_of_batch(stages_ms: Mapping[str, float], decode_steps: int, questions: int) -> dict[str, float | None]:
    """One question's share of what the stages of its batch took.

    Args:
        stages_ms, decode_steps: from ``Stopwatch.lap``.
        questions: of the batch.
    """
    shares = {f"{stage}_ms": round(stages_ms[stage] / questions, 3) for stage in STAGES}
    per_token = stages_ms["decode"] / decode_steps / questions if decode_steps else None
    return shares | {PER_TOKEN: per_token and round(per_token, 3)}


def profile_of(metadata: Iterable[Mapping[str, Any]]) -> Profile | None:
    """Summarise the ``metadata`` of answers; None where none of them was profiled."""
    profiled = [entry for entry in metadata if "profile" in entry]
    if not profiled:
        return None
    columns = {key: [entry["profile"][key] for entry in profiled if entry["profile"][key] is not None] for key in KEYS}
    means = {key: fmean(values) if values else None for key, values in columns.items()}
    kv_mb, peaks = ([entry["profile"][key] for entry in profiled if key in entry["profile"]] for key in MEMORY)
    return Profile(
        len(profiled),
        means,
        fmean(entry["latency_ms"] for entry in profiled),
        _disturbed(profiled),
        fmean(kv_mb) if kv_mb else None,
        max(peaks, default=None),
    )


def _disturbed(profiled: Sequence[Mapping[str, Any]]) -> bool:
    """``Profile.noisy``, of the questions that are most alike: those of the most usual number of tiles and tokens."""
    alike: dict[tuple, list[float]] = defaultdict(list)
    for entry in profiled:
        to_first_token = sum(entry["profile"][f"{stage}_ms"] for stage in STAGES if stage != "decode")
        alike[entry.get("tiles"), entry.get("visual_tokens")].append(to_first_token)
    return is_noisy(max(alike.values(), key=len))


def merge(profiles: Sequence[Profile]) -> Profile | None:
    """The means over the questions of several profiles; None for none."""
    if not profiles:
        return None
    count = sum(profile.count for profile in profiles)
    stages = {}
    for key in KEYS:
        known = [profile for profile in profiles if profile.stages[key] is not None]
        weight = sum(profile.count for profile in known)
        stages[key] = sum(profile.count * profile.stages[key] for profile in known) / weight if known else None
    noisy, peaks = any(each.noisy for each in profiles), [each.peak_mb for each in profiles if each.peak_mb is not None]
    held = [(each.count, each.kv_mb) for each in profiles if each.kv_mb is not None]
    return Profile(
        count,
        stages,
        sum(profile.count * profile.latency_ms for profile in profiles) / count,
        noisy,
        sum(of * kv_mb for of, kv_mb in held) / sum(of for of, _ in held) if held else None,
        max(peaks, default=None),
    )
