import sys

import numpy as np
import pytest
from PIL import Image

from llava.eval.pictures.figures import (
    PATCH_PIXELS,
    check_picture,
    draw_panels,
    draw_selections,
    overlay,
    plot_accuracy,
)
from llava.records import InputError


def test_kept_patches_keep_their_colour_and_dropped_ones_fade():
    picture = overlay(Image.new("RGB", (6, 6), (200, 0, 0)), keep=[0, 5], side=3)
    patches = picture.reshape(3, PATCH_PIXELS, 3, PATCH_PIXELS, 3).swapaxes(1, 2).reshape(9, -1, 3)
    assert picture.dtype == np.uint8
    kept = [i for i, patch in enumerate(patches) if (patch == (200, 0, 0)).all()]
    assert kept == [0, 5]
    assert all((patches[i] > 150).all() for i in range(9) if i not in kept)


def rows():
    yield {"pruner": "none", "visual_tokens_kept": 144.0, "accuracy": 0.9, "stderr": 0.01}
    for name in ("random", "divprune", "a_new_one"):
        for tokens in (9.0, 36.0, 18.0):
            yield {"pruner": name, "visual_tokens_kept": tokens, "accuracy": tokens / 50, "stderr": 0.02}


def coloured_pixels(path, colour):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return int((np.asarray(picture.convert("RGB")) == colour).all(axis=-1).sum())


def test_the_accuracy_plot_draws_every_pruner_even_an_unknown_one(tmp_path):
    plot_accuracy(list(rows()), tmp_path / "all.png", "title")
    plot_accuracy([row for row in rows() if row["pruner"] != "divprune"], tmp_path / "without.png", "title")
    orange = (0xD5, 0x5E, 0x00)
    assert coloured_pixels(tmp_path / "all.png", orange) > 100
    assert coloured_pixels(tmp_path / "without.png", orange) == 0


def test_the_selection_picture_has_a_panel_per_pruner_showing_what_it_keeps(tmp_path):
    red = (200, 0, 0)
    image = Image.new("RGB", (96, 96), red)
    few, many = {"a": [0], "b": [7], "c": [100]}, {"a": range(144), "b": range(100), "c": range(50)}
    for name, panels in {"few": few, "many": many}.items():
        draw_selections(image, panels, 12, tmp_path / f"{name}.png", "What?", columns=2)
    kept = {name: coloured_pixels(tmp_path / f"{name}.png", red) for name in ("few", "many")}
    assert 0 < kept["few"] < kept["many"] / 20


def test_dollar_signs_in_questions_and_answers_begin_no_formula(tmp_path):
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    draw_panels([[(r"$\frac$ or $5", picture)]], tmp_path / "p.png", r"How much is $\no$?")
    assert coloured_pixels(tmp_path / "p.png", (0, 0, 0)) > 100


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(InputError, match=r"needs matplotlib.*: pip install '\.\[eval\]'"):
        plot_accuracy(list(rows()), tmp_path / "all.png", "title")


def test_a_kind_of_picture_that_cannot_be_written_is_named_with_those_that_can(tmp_path):
    with pytest.raises(InputError, match=r"a\.docx: no picture of this kind can be written; valid are .*png"):
        check_picture(tmp_path / "a.docx")
    assert not list(tmp_path.iterdir())
    assert check_picture(tmp_path / "a.PNG") == tmp_path / "a.PNG"
