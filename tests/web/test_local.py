import threading
from pathlib import Path

import numpy as np
import pytest

import llava
from llava.convert.program import to_hf
from llava.pruners import PRUNERS
from llava.records import InputError
from llava.web.local import Local

from .test_asked import through

QUESTION = "How many shapes are there?"
ROOT = Path(__file__).parents[2]


def test_what_can_be_chosen(engine):
    assert set(engine.pruners) == set(PRUNERS) - {"fastv", "hiprune"}  # whose block 9 the small encoder does not have
    assert (engine.tokens, engine.budget, engine.pruner) == (144, 18, "cdpruner")


@pytest.mark.parametrize("pruner", ["none", *(name for name in PRUNERS if name not in ("fastv", "hiprune"))])
def test_every_choice_is_answered_with(engine, picture, pruner):
    _, told = through(engine.ask(picture, QUESTION, pruner, 18))
    assert told.tokens_before == 144 and told.visual_tokens == (144 if pruner == "none" else 18)
    assert told.seconds > 0 and told.text
    (drawn,) = told.pictures
    side = drawn.shape[0] // 12
    faded = drawn.reshape(12, side, 12, side, 3).min(axis=(1, 3, 4)) >= 0.82 * 255 - 1
    assert faded.sum() == 144 - told.visual_tokens


def test_the_answer_is_the_models_own(engine, picture):
    for pruner in ("none", "divprune"):
        seen, told = through(engine.ask(picture, QUESTION, pruner, 9))
        pruning = None if pruner == "none" else {"pruner": "divprune", "visual_token_num": 9}
        assert told.text == engine.model.answer(picture, QUESTION, pruning=pruning, max_new_tokens=16).text
        assert seen and seen[-1].strip() == told.text and 0 < told.first <= told.seconds


def test_two_visitors_at_a_time_get_their_own_answers(engine, drawn, picture, switching):
    asked = [("cdpruner", 9), ("divprune", 9), ("vispruner", 18), ("none", 1)] * 3
    alone = [through(engine.ask(picture, QUESTION, *each))[1] for each in asked]
    together = [None] * len(asked)

    def visit(index):
        together[index] = through(engine.ask(picture, QUESTION, *asked[index]))[1]

    visitors = [threading.Thread(target=visit, args=(index,)) for index in range(len(asked))]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    for one, other in zip(alone, together, strict=True):
        assert (one.text, one.visual_tokens) == (other.text, other.visual_tokens)
        assert np.array_equal(one.pictures[0], other.pictures[0])
    assert not np.array_equal(alone[0].pictures[0], alone[1].pictures[0])


@pytest.mark.parametrize(
    "pruner, budget, said",
    [
        ("fastv", 18, "no pruner 'fastv'"),
        ("../x", 18, "no pruner"),
        (["cdpruner"], 18, "no pruner"),
        ("cdpruner", 145, "has 144; choose 1 to 144"),
        ("cdpruner", 0, "whole number from 1 up"),
        ("cdpruner", -3, "whole number from 1 up"),
        ("cdpruner", None, "whole number from 1 up"),
        ("cdpruner", 1.5, "whole number from 1 up"),
        ("cdpruner", True, "whole number from 1 up"),
        ("cdpruner", "18", "whole number from 1 up"),
    ],
)
def test_choices_that_are_refused(engine, pruner, budget, said):
    with pytest.raises(InputError, match=said):
        engine.check(pruner, budget)


def test_a_budget_means_nothing_without_a_pruner(engine):
    engine.check("none", None)
    engine.check("cdpruner", 144)


def test_a_whole_budget_says_that_nothing_was_dropped(engine, picture):
    _, told = through(engine.ask(picture, QUESTION, "cdpruner", 144))
    assert told.notes == ["cdpruner dropped nothing: the picture has 144 visual tokens."]


def test_what_the_model_refuses_is_told(engine, picture):
    with pytest.raises(InputError, match="would lose its end.*ask less"):
        through(engine.ask(picture, "word " * 4000, "none", 1))


def test_tiles_are_drawn_beside_the_whole(picture):
    engine = Local(llava.load(ROOT / "tests/e2e/checkpoints/llava-v1.6-vicuna-tiny", device="cpu"), 2, 1)
    engine.warm(picture)
    assert (engine.tokens, engine.budget, engine.pruner) == (576, 72, "cdpruner")
    wide = picture.resize((400, 200))
    for pruner in ("none", "divprune"):
        _, told = through(engine.ask(wide, QUESTION, pruner, 72))
        base, grid = told.pictures
        assert base.shape == (384, 384, 3) and grid.shape[1] > grid.shape[0]
        assert (told.visual_tokens < told.tokens_before) == (pruner == "divprune")


def test_a_model_of_transformers_own(llava_shapes, tmp_path, picture, can_prune):
    to_hf(Path(llava_shapes), tmp_path / "hf")
    engine = Local(llava.load(tmp_path / "hf", device="cpu"), 8, 1)
    assert (engine.tokens, engine.budget) == (None, 64)
    engine.warm(picture)
    _, told = through(engine.ask(picture, QUESTION, "divprune", 36))
    assert (told.visual_tokens, told.tokens_before, told.pictures) == (36, 144, [])
    _, told = through(engine.ask(picture, QUESTION, "divprune", 500))
    assert told.notes == ["divprune dropped nothing: the picture has 144 visual tokens."]
