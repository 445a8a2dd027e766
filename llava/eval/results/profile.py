"""How long the stages of answering took, as ``--profile`` records it in the answers' metadata."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from llava.model.stages import STAGES

PER_TOKEN = "decode_ms_per_token"
KEYS = (*(f"{stage}_ms" for stage in STAGES), PER_TOKEN)


@dataclass(frozen=True)
class Profile:
    """Means over questions, first batches left out.

    Args:
        count: questions.
        stages: milliseconds by the keys of ``KEYS``, a question's share of its batch; None where no question has any.
        latency_ms: milliseconds of the whole call, likewise shared; what is in no stage is tokens, splicing and the
            choice of the next token.
    """

    count: int
    stages: Mapping[str, float | None]
    latency_ms: float

    @property
    def questions_per_second(self) -> float:
        """Throughput of one process, image files read elsewhere."""
        return 1000 / self.latency_ms

    def __str__(self) -> str:
        taken = ", ".join(f"{stage} {self.stages[f'{stage}_ms']:.1f}" for stage in STAGES)
        per_token = "" if self.stages[PER_TOKEN] is None else f" ({self.stages[PER_TOKEN]:.1f} per token)"
        return (
            f"milliseconds per question, over {self.count}: {taken}{per_token}, all {self.latency_ms:.1f}; "
            f"{self.questions_per_second:.1f} questions per second"
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
    return Profile(len(profiled), means, fmean(entry["latency_ms"] for entry in profiled))


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
    return Profile(count, stages, sum(profile.count * profile.latency_ms for profile in profiles) / count)
