"""Several threads call one pruned model at the same time, as a server does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers.generation.streamers import BaseStreamer

from llava.pruners import resolve_pruner
from llava.pruning import prune
from llava.selecting.options import PruningOptions

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
IMAGE = 90


@pytest.fixture
def jobs():
    """Prompts of different lengths about different images, and one without an image."""
    prompts = [[1, 5, *[IMAGE] * 16, *range(10, 12 + 3 * number)] for number in range(3)]
    shown = [{"input_ids": torch.tensor([prompt]), "pixel_values": torch.randn(1, 3, 8, 8)} for prompt in prompts]
    return [*shown, {"input_ids": torch.tensor([[1, 5, 6, 7]])}]


def asked(model, record, job, **options):
    """The ids of an answer and what the record says of the call."""
    ids = model.generate(**job, **GREEDY, **options)
    return ids.tolist(), [keep.tolist() for keep in record.keep], record.visual_tokens, record.tokens_before


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}])
@torch.no_grad()
def test_every_thread_has_its_own_answers_and_records(tiny_llava, jobs, switching, layer, options):
    model = tiny_llava.model
    with prune(model, "vispruner", visual_token_num=5, prune_layer=layer) as record:
        expected = [asked(model, record, job, **options) for job in jobs]
        assert len({str(entry) for entry in expected}) == len(expected), "the jobs cannot be told apart"
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda job: asked(model, record, job, **options), jobs * 5))
    assert found == expected * 5


def test_a_thread_that_sets_no_texts_has_those_of_the_one_that_pruned(tiny_llava):
    with (
        prune(tiny_llava.model, "divprune", visual_token_num=5, texts="given") as record,
        ThreadPoolExecutor(1) as other,
    ):
        assert other.submit(lambda: record.texts).result() == "given"
        record.texts = "changed"
        assert other.submit(lambda: record.texts).result() == "changed"
        other.submit(setattr, record, "texts", "of the other").result()
        assert other.submit(lambda: record.texts).result() == "of the other"
        assert record.texts == "changed"


def test_a_thread_that_made_no_call_has_an_empty_record(tiny_llava):
    with prune(tiny_llava.model, "divprune", visual_token_num=5) as record, ThreadPoolExecutor(1) as other:
        tiny_llava.model(**tiny_llava.inputs)
        assert other.submit(lambda: record.visual_tokens).result() == []
        assert record.visual_tokens == [5, 5, 5]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_call_that_is_unpruned_under_way_is_an_error(tiny_llava, jobs, layer):
    """Its cache is short, and nothing knows of that any more."""
    model = tiny_llava.model
    record = prune(model, "divprune", visual_token_num=5, prune_layer=layer)

    class Unprunes(BaseStreamer):
        def put(self, value):
            record.remove()

        def end(self):
            pass

    with pytest.raises(RuntimeError, match="its pruning changed while it was under way"):
        model.generate(**jobs[0], **GREEDY, streamer=Unprunes())
    expected = model.generate(**jobs[-1], **GREEDY)
    record = prune(model, "divprune", visual_token_num=5, prune_layer=layer)
    assert torch.equal(model.generate(**jobs[-1], **GREEDY, streamer=Unprunes()), expected)


@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_threads_bring_pruners_of_their_own_to_one_model(tiny_llava, jobs, switching, layer):
    model, job = tiny_llava.model, jobs[0]
    plain = model.generate(**job, **GREEDY).tolist()
    own = PruningOptions(resolve_pruner("divprune", 5), prune_layer=layer)
    chosen = [("vispruner", 3, 0), ("uniform", 4, layer), ("cls_topk", 5, layer), ("trim", 6, 0)]
    brought, expected = [PruningOptions(resolve_pruner(*each), prune_layer=at) for *each, at in chosen], []
    for (name, tokens, at), options in zip(chosen, brought, strict=True):
        with prune(model, options.pruner, prune_layer=at) as record:
            expected.append(asked(model, record, job))
            assert record.visual_tokens == [tokens], name
    with prune(model, own.pruner, prune_layer=layer) as record:
        before = asked(model, record, job)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda options: asked(model, record, job, pruning=options), brought * 4))
            unpruned = list(pool.map(lambda _: model.generate(**job, **GREEDY, pruning=None).tolist(), range(4)))
        assert found == expected * 4 and unpruned == [plain] * 4
        assert asked(model, record, job) == before
        model.generate(**job, **GREEDY, pruning=None)
        assert record.keep is None and record.visual_tokens == []
        assert asked(model, record, job) == before


def test_a_call_cannot_bring_what_the_model_has_one_of(tiny_llava, jobs):
    vispruner = resolve_pruner("vispruner", 3)
    with prune(tiny_llava.model, "divprune", visual_token_num=5):
        for name, options in (("prune_layer", {"prune_layer": 1}), ("attention", {"attention": "received"})):
            with pytest.raises(ValueError, match=f"{name} of a call must be the model's"):
                tiny_llava.model.generate(**jobs[0], **GREEDY, pruning=PruningOptions(vispruner, **options))
