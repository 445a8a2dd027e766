"""Several threads call one pruned model at the same time, as a server does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers.generation.streamers import BaseStreamer

from llava.pruning import prune

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
