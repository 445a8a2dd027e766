import time
from types import SimpleNamespace

import pytest
import torch

from llava.model import stages
from llava.model.stages import STAGES, Stopwatch
from llava.pruners import resolve_pruner

from .conftest import QUESTIONS, generate, question_prompts


@pytest.fixture
def answer(load, checkpoint, images):
    """Return a function that answers three questions in one call under a pruner; ``answer.model`` is the model."""
    tokenizer, model, processor, _ = load(checkpoint)

    def call(name="divprune", **options):
        model.set_pruner(None if name == "none" else resolve_pruner(name, visual_token_num=5))
        prompts = question_prompts(tokenizer, QUESTIONS)
        return generate(model, tokenizer, processor, images, QUESTIONS, prompts, **options)

    call.model = model
    return call


@pytest.mark.parametrize("name", ["none", "divprune", "cdpruner"])
def test_every_stage_takes_time_and_all_together_no_more_than_passed(answer, name):
    answer(name)
    with Stopwatch(answer.model) as watch:
        start = time.perf_counter()
        answer(name)
        wall_ms = 1000 * (time.perf_counter() - start)
        taken, _ = watch.lap()
    assert tuple(taken) == STAGES
    assert [stage for stage, ms in taken.items() if not ms > 0] == (["selection"] if name == "none" else [])
    assert sum(taken.values()) <= wall_ms


def test_the_first_pass_is_prefill_and_every_other_one_decodes(answer):
    any_token = list(range(answer.model.config.vocab_size))
    with Stopwatch(answer.model) as watch:
        for tokens, options in [(8, {"min_new_tokens": 8}), (1, {"eos_token_id": any_token})]:
            assert answer(**options).shape == (3, tokens)
            taken, steps = watch.lap()
            assert taken["prefill"] > 0 and steps == tokens - 1 and (taken["decode"] > 0) == (steps > 0)


def test_a_lap_starts_anew(answer):
    with Stopwatch(answer.model) as watch:
        answer()
        watch.lap()
        assert watch.lap() == (dict.fromkeys(STAGES, 0.0), 0)


def test_answers_are_the_same_and_nothing_stays_behind(answer):
    model = answer.model
    before, hooks = answer(), (len(model._forward_hooks), len(model._forward_pre_hooks))
    with Stopwatch(model) as watch:
        assert torch.equal(answer(), before)
    assert model.stopwatch is None and (len(model._forward_hooks), len(model._forward_pre_hooks)) == hooks
    watch.lap()
    answer()
    assert watch.lap() == (dict.fromkeys(STAGES, 0.0), 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: ``clock.now``, in seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_a_stage_within_another_counts_for_itself_alone(clock):
    watch = Stopwatch(torch.nn.Linear(1, 1))
    with watch.stage("prefill"):
        clock.now = 1.0
        with watch.stage("selection"):
            clock.now = 3.0
        clock.now = 7.0
    clock.now = 100.0
    with watch.stage("vision"):
        clock.now = 100.5
    taken, _ = watch.lap()
    assert taken == {"vision": 500.0, "projector": 0.0, "selection": 2000.0, "prefill": 5000.0, "decode": 0.0}


def test_a_pass_that_fails_ends_its_stage(clock):
    model = torch.nn.Linear(1, 1)
    with Stopwatch(model) as watch:
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 2))
        clock.now = 5.0
        with watch.stage("vision"):
            clock.now = 6.0
        assert watch.lap()[0] == dict.fromkeys(STAGES, 0.0) | {"vision": 1000.0}
