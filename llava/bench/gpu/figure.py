"""When does it pay: how many times faster prompts are read and answered with pruned images, as a picture of bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, STEP, HEAD = 850, 330, 180, 16, 24, 30
GAIN, NO_GAIN, INK, FAINT = "#1b7837", "#bdbdbd", "#222222", "#777777"
LEAST_GAIN = 1.1  # a bar below it has the colour of no gain
NAMES = {576: "LLaVA-1.5", 2880: "LLaVA-NeXT"}
KEPT = {576: 64, 2880: 320}
READING, ANSWERING = "Reading the prompt (prefill, ms)", "Answering with 8 new tokens (images a second)"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One bar.

    Args:
        group: what the bars beneath one heading share.
        label: what was run.
        before, after: what was measured without and with pruning.
        more_is_better: whether they are speeds, not times.
    """

    group: str
    label: str
    before: float
    after: float
    more_is_better: bool = False

    @property
    def gain(self) -> float:
        return self.after / self.before if self.more_is_better else self.before / self.after


def cases(results: Row) -> list[Case]:
    """The bars of a run, or those that a file brings itself, as "pays"."""
    if "pays" in results:
        return [Case(**entry) for entry in results["pays"]]
    parts = results["parts"]
    rows = {name: parts.get(name, {}).get("rows", ()) for name in ("stages", "saturation")}
    prefill = [row for row in rows["stages"] if row["suite"] == "prefill"]
    return [*_reading(prefill), *_answering(rows["saturation"])]


def _reading(rows: Sequence[Row]) -> list[Case]:
    ms = {(row["B"], row["visual"]): row["wall_ms"] for row in rows}
    found = []
    for batch in sorted({batch for batch, _ in ms}):
        for tokens, kept in KEPT.items():
            if {(batch, tokens), (batch, kept)} <= ms.keys():
                label = f"{NAMES[tokens]}, {_number(batch)}, {tokens} to {kept} tokens"
                found.append(Case(READING, label, ms[batch, tokens], ms[batch, kept]))
    return found


def _answering(rows: Sequence[Row]) -> list[Case]:
    known = [row for row in rows if row["question"] == "known" and "images_per_second" in row]
    speeds = {(row["method"], row["B"]): row["images_per_second"] for row in known}
    visual = {row["method"]: row["visual"] for row in known}
    return [
        Case(
            ANSWERING,
            f"{NAMES.get(visual['none'], 'LLaVA')}, {_number(batch)} at once, to {visual['cdpruner']} tokens",
            speeds["none", batch],
            speeds["cdpruner", batch],
            more_is_better=True,
        )
        for batch in sorted({batch for _, batch in speeds})
        if {("none", batch), ("cdpruner", batch)} <= speeds.keys()
    ]


def _number(batch: int) -> str:
    return "1 prompt" if batch == 1 else f"{batch} prompts"


def svg(bars: Sequence[Case]) -> str:
    """The picture: a bar's length is the gain, and the line stands where nothing is gained."""
    groups = list(dict.fromkeys(bar.group for bar in bars))
    height = HEAD * (len(groups) + 1) + STEP * len(bars)
    scale = (WIDTH - LEFT - RIGHT) / max(bar.gain for bar in bars)
    body, y = [], 0
    for group in groups:
        body.append(_text(10, y + HEAD - 9, group, "start", INK, "bold"))
        y += HEAD
        for bar in (bar for bar in bars if bar.group == group):
            body += _bar(bar, y, scale)
            y += STEP
    line = LEFT + scale
    body.append(
        f'<line x1="{line:.1f}" y1="{HEAD - 4}" x2="{line:.1f}" y2="{y}" stroke="{INK}" stroke-dasharray="3 3"/>'
    )
    body.append(_text(line, y + 18, "no gain", "middle", FAINT))
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
    frame += 'font-family="sans-serif" font-size="13">\n<title>How many times faster with pruned images</title>'
    return "\n".join([frame, f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *body, "</svg>\n"])


def _bar(bar: Case, y: int, scale: float) -> list[str]:
    length, colour = scale * bar.gain, GAIN if bar.gain >= LEAST_GAIN else NO_GAIN
    said = f"{bar.gain:.1f} times: {_short(bar.before)} to {_short(bar.after)}"
    return [
        _text(LEFT - 8, y + BAR - 3, bar.label, "end", INK),
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
        _text(LEFT + length + 8, y + BAR - 3, said, "start", INK),
    ]


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def _text(x: float, y: float, words: str, anchor: str, colour: str, weight: str = "normal") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f"<text {at}>{escape(words)}</text>"
