"""Several threads call one model at the same time, as a server does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers.generation.streamers import BaseStreamer

from llava.mm_utils import process_images
from llava.model.stages import Stopwatch
from llava.pruners import resolve_pruner
from llava.selecting.options import PruningOptions

from .conftest import QUESTIONS, question_prompts


@pytest.fixture
def jobs(images):
    """One prompt with one image each."""

    def jobs(tokenizer, model, processor):
        prompts = question_prompts(tokenizer, QUESTIONS)
        return [
            {
                "inputs": prompt[None],
                "images": process_images([image], processor, model.config),
                "image_sizes": [image.size],
                "texts": [question],
            }
            for prompt, image, question in zip(prompts, images, QUESTIONS, strict=True)
        ]

    return jobs


def asked(model, job):
    """Answer one prompt; the ids and what the record says of the call."""
    ids = model.generate(**job, max_new_tokens=4, do_sample=False)
    record = model.last_prune
    return ids.tolist(), [keep.tolist() for keep in record.keep or []], record.visual_tokens, record.tokens_before


@pytest.mark.parametrize("pruner, layer", [("cdpruner", 0), ("vispruner", 1), ("fastv", 1)])
def test_the_record_is_that_of_the_threads_own_call(load, anyres_checkpoint, jobs, switching, pruner, layer):
    options = {"pruner": pruner, "visual_token_num": 5, "prune_layer": layer}
    tokenizer, model, processor, _ = load(anyres_checkpoint, anyres="fixed", **options)
    work = jobs(tokenizer, model, processor)
    expected = [asked(model, job) for job in work]
    assert len({str(entry) for entry in expected}) == len(expected), "the jobs cannot be told apart"
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda job: asked(model, job), work * 8))
    assert found == expected * 8
    assert model.last_prune.visual_tokens == expected[-1][2]


def test_a_call_ends_with_the_pruner_that_it_began_with(load, checkpoint, jobs, switching):
    """Another thread swaps it all the time: every answer is that of one pruner or of the other."""
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5)
    job = jobs(tokenizer, model, processor)[0]
    pruners = [resolve_pruner("divprune", 5), resolve_pruner("vispruner", 3), None]
    expected = []
    for pruner in pruners:
        model.set_pruner(pruner)
        ids = model.generate(**job, max_new_tokens=4, do_sample=False)
        expected.append((ids.tolist(), model.last_prune.visual_tokens))
    done = []

    def swap():
        while not done:
            for pruner in pruners:
                model.set_pruner(pruner)

    def answer(_):
        ids = model.generate(**job, max_new_tokens=4, do_sample=False)
        return ids.tolist(), model.last_prune.visual_tokens

    with ThreadPoolExecutor(3) as pool:
        swapping = pool.submit(swap)
        found = list(pool.map(answer, range(20)))
        done.append(True)
        swapping.result()
    assert all(entry in expected for entry in found)


def test_a_stopwatch_times_the_calls_of_its_thread(load, checkpoint, jobs):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5)
    job = jobs(tokenizer, model, processor)[0]
    with Stopwatch(model) as stopwatch, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: model.generate(**job, max_new_tokens=2, do_sample=False)).result()
        assert not stopwatch.calls
        model.generate(**job, max_new_tokens=2, min_new_tokens=2, do_sample=False)
        assert stopwatch.calls["prefill"] == stopwatch.calls["decode"] == stopwatch.calls["vision"] == 1


@torch.no_grad()
def test_a_thread_that_made_no_call_has_no_record(load, checkpoint, jobs):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5)
    model.generate(**jobs(tokenizer, model, processor)[0], max_new_tokens=1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: model.last_prune).result() is None
    assert model.last_prune.visual_tokens == [5]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_call_under_way_needs_its_layer(load, checkpoint, jobs, layer):
    """What was dropped behind layer 1 is missing for another layer's hooks; before the first layer, nothing is."""
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5, prune_layer=layer)
    job = jobs(tokenizer, model, processor)[0] | {"max_new_tokens": 4, "min_new_tokens": 4}
    expected = model.generate(**job)

    class Changes(BaseStreamer):
        def put(self, value):
            model.prune_layer = 1 - layer

        def end(self):
            pass

    if layer == 0:
        assert torch.equal(model.generate(**job, streamer=Changes()), expected)
        return
    with pytest.raises(RuntimeError, match="prune_layer changed while it was under way"):
        model.generate(**job, streamer=Changes())


@pytest.mark.parametrize("layer", [0, 1])
def test_threads_bring_pruners_of_their_own_to_one_model(load, checkpoint, jobs, switching, layer):
    """And none of them changes what the model is set to, which calls that bring none go on with."""
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5, prune_layer=layer)
    job = jobs(tokenizer, model, processor)[0]
    brought = [PruningOptions(resolve_pruner(*each)) for each in (("vispruner", 3), ("cdpruner", 7))]
    brought += [PruningOptions(resolve_pruner("uniform", 4), prune_layer=layer), None]
    expected = []
    for options in brought:
        model.pruning = options or PruningOptions()
        expected.append(asked(model, job))
    model.pruning = PruningOptions(resolve_pruner("divprune", 5), prune_layer=layer)
    own = asked(model, job)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda options: asked(model, job | {"pruning": options}), brought * 4))
    assert found == expected * 4
    assert asked(model, job) == own and own[2] == [5]


def test_a_call_cannot_bring_what_the_model_has_one_of(load, checkpoint, jobs):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=5)
    job = jobs(tokenizer, model, processor)[0]
    with pytest.raises(ValueError, match="prune_layer of a call must be the model's, 0, not 1"):
        model.generate(**job, pruning=PruningOptions(resolve_pruner("fastv", 5), prune_layer=1))
    with pytest.raises(ValueError, match="text_chunking of a call must be the model's, release"):
        model.generate(**job, pruning=PruningOptions(resolve_pruner("cdpruner", 5), text_chunking="bos_eos"))
