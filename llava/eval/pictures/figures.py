"""Pictures of results: accuracy against tokens, and which tokens of an image are kept. Needs the extra ``eval``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.eval.tasks.tables import import_extra
from llava.records import InputError, check_output

PATCH_PIXELS = 32
LEGEND_INSIDE = 9  # lines of a legend that leave room for what it explains
DROPPED_TINT = 0.82  # share of white over a dropped patch
STYLES = {  # colours and marks that stay apart for colour-blind readers; baselines are dashed
    "cdpruner": {"color": "#0072B2", "marker": "o"},
    "divprune": {"color": "#D55E00", "marker": "s"},
    "vispruner": {"color": "#009E73", "marker": "^"},
    "mfpruner": {"color": "#CC79A7", "marker": "D"},
    "scope": {"color": "#E69F00", "marker": "P"},
    "mmtok": {"color": "#882255", "marker": "X"},
    "eadp": {"color": "#117733", "marker": "*"},
    "zoo_prune": {"color": "#332288", "marker": "<"},
    "holov": {"color": "#44AA99", "marker": ">", "linestyle": "-."},
    "prunesid": {"color": "#AA4499", "marker": "p", "linestyle": "-."},
    "hiprune": {"color": "#999933", "marker": "h", "linestyle": "-."},
    "visionzip": {"color": "#88CCEE", "marker": "d", "linestyle": "--"},
    "prumerge": {"color": "#DDCC77", "marker": "1", "linestyle": "--"},
    "trim": {"color": "#CC6677", "marker": "2", "linestyle": "--"},
    "fastv": {"color": "#661100", "marker": "3", "linestyle": "--"},
    "cls_topk": {"color": "#56B4E9", "marker": "v", "linestyle": "--"},
    "uniform": {"color": "#555555", "marker": "x", "linestyle": "--"},
    "random": {"color": "#999999", "marker": "+", "linestyle": "--"},
}


def new_figure(size: tuple[float, float]) -> Any:
    """A figure of matplotlib's, ``size`` inches wide and high.

    Raises:
        InputError: matplotlib is not installed.
    """
    return import_extra("matplotlib.figure").Figure(figsize=size, layout="constrained")


def literal(text: str) -> str:
    """Text that matplotlib shows as it is: between two dollar signs it would read formulas."""
    return text.replace("$", r"\$")


def plot_accuracy(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Plot accuracy against visual tokens, one line per pruner, with two standard errors either way.

    Args:
        rows: objects with ``pruner``, ``visual_tokens_kept``, ``accuracy`` and ``stderr`` in [0, 1]; the row of
            pruner ``none`` becomes a level line.
        path: the PNG to write.
    """
    figure = new_figure((7, 4.5))
    axes = figure.subplots()
    for name in dict.fromkeys(row["pruner"] for row in rows):
        points = sorted((row for row in rows if row["pruner"] == name), key=lambda row: row["visual_tokens_kept"])
        tokens, accuracy, spread = zip(
            *((row["visual_tokens_kept"], 100 * row["accuracy"], 200 * row["stderr"]) for row in points), strict=True
        )
        if name == "none":
            axes.axhline(accuracy[0], color="black", linestyle=":", label=f"none ({tokens[0]:.0f} tokens)")
        else:
            pruner, *options = name.split(", ")
            style = STYLES.get(pruner, {"marker": "."}) | ({"linestyle": ":"} if options else {})
            axes.errorbar(tokens, accuracy, spread, label=name, capsize=3, **style)
    ticks = sorted({row["visual_tokens_kept"] for row in rows if row["pruner"] != "none"})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.set(xlabel="visual tokens kept", ylabel="accuracy (%), bars: two standard errors", title=title)
    axes.grid(alpha=0.3)
    if len(axes.get_legend_handles_labels()[0]) > LEGEND_INSIDE:
        figure.set_size_inches(10, 6)
        figure.legend(loc="outside right upper")
    else:
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def fade_dropped(image: Image.Image, kept: np.ndarray, patch_pixels: int = PATCH_PIXELS) -> np.ndarray:
    """The image with its dropped patches faded to white.

    Args:
        image: what the encoder saw of the image.
        kept: (rows, columns) bool, one entry per patch.
        patch_pixels: side of a patch in the result.

    Returns:
        (rows * patch_pixels, columns * patch_pixels, 3) uint8.
    """
    size = tuple(patch_pixels * patches for patches in kept.shape[::-1])
    colours = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    tint = np.where(kept, 0.0, DROPPED_TINT).repeat(patch_pixels, 0).repeat(patch_pixels, 1)[..., None]  # (H, W, 1)
    return (colours * (1 - tint) + 255 * tint).round().astype(np.uint8)


def overlay(image: Image.Image, keep: Sequence[int], side: int) -> np.ndarray:
    """``fade_dropped`` for the kept patches of a square image, in raster order of a grid of ``side`` by ``side``."""
    kept = np.zeros(side * side, dtype=bool)
    kept[list(keep)] = True
    return fade_dropped(image, kept.reshape(side, side))


def check_picture(path: str | Path) -> Path:
    """``check_output`` for a picture.

    Raises:
        InputError: as ``check_output``, or its name ends as no kind of picture does that can be written.
    """
    kind, known = Path(path).suffix.removeprefix(".").lower(), new_figure((1, 1)).canvas.get_supported_filetypes()
    if kind and kind not in known:
        raise InputError(f"{path}: no picture of this kind can be written; valid are {', '.join(sorted(known))}")
    return check_output(path)


def draw_panels(rows: Sequence[Sequence[tuple[str, np.ndarray]]], path: str | Path, title: str) -> None:
    """Draw pictures in rows, each under its caption.

    Args:
        rows: captions and pictures (H, W, 3); rows may differ in length.
        path: the PNG to write.
    """
    columns = max(map(len, rows))
    aspect = max(picture.shape[1] / picture.shape[0] for row in rows for _, picture in row)
    figure = new_figure((2.4 * columns * aspect, 2.7 * len(rows) + 0.4))
    figure.suptitle(literal(title))
    for axes_of_row, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axes in axes_of_row:
            axes.set_axis_off()
        for axes, (caption, picture) in zip(axes_of_row, row, strict=False):
            axes.imshow(picture)
            axes.set_title(literal(caption), fontsize=10)
    figure.savefig(path, dpi=110)


def draw_selections(
    image: Image.Image, panels: Mapping[str, Sequence[int]], side: int, path: str | Path, title: str, columns: int = 4
) -> None:
    """Draw one panel per selection of the same image.

    Args:
        image: what the encoder saw of the image, square.
        panels: kept patches by the caption of their panel.
        side: patches along an edge of the image.
        path: the PNG to write.
        columns: panels side by side.
    """
    pictures = [(caption, overlay(image, keep, side)) for caption, keep in panels.items()]
    draw_panels([pictures[i : i + columns] for i in range(0, len(pictures), columns)], path, title)
