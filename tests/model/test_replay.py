"""What is captured, kept and replayed: with graphs that are none, and on a GPU."""

import copy
import pickle
import threading

import pytest
import torch

from llava.bench.flops import Shape
from llava.bench.models import random_llava
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.decoding import Decoder
from llava.model.replay import Recent, Replays
from llava.model.stages import Stopwatch
from llava.pruners import resolve_pruner

from .conftest import QUESTIONS, Recorder, generate, question_prompts, with_graphs


def double(x):
    return 2 * x, None


def test_what_is_called_again_in_the_same_form_is_captured(graphs):
    replays = Replays(Recorder)
    for number in range(4):
        assert replays("double", double, {"x": torch.tensor([number])})[0].item() == 2 * number
    assert [graph.calls for graph in graphs] == [3]
    for _ in range(2):
        replays("double", double, {"x": torch.zeros(2)})
        replays("double", double, {"x": torch.zeros(1)})
        replays("twice", double, {"x": torch.zeros(1)})
    assert [graph.calls for graph in graphs] == [3, 1, 1, 1]


def test_a_bounded_number_of_graphs_is_kept(graphs):
    replays = Replays(Recorder, limit=2)
    for size in (1, 1, 2, 2, 3, 3, 1):
        replays("double", double, {"x": torch.zeros(size)})
    assert [len(graph.inputs["x"]) for graph in graphs] == [1, 2, 3, 1]
    assert len(replays._graphs._values) == 2


def test_forms_may_have_to_come_more_often_and_the_first_may_stay(graphs):
    replays = Replays(Recorder, limit=2, calls=2, replaces=False)
    for size in (1, 1, 2, 1, 2, 2, 3, 3, 3, 3, 1):
        found = replays.replayed("double", double, {"x": torch.ones(size)})
        assert found is None or found[0].sum() == 2 * size
    assert [(len(graph.inputs["x"]), graph.calls) for graph in graphs] == [(1, 2), (2, 1)]


def test_what_cannot_be_captured_is_called_as_it_is_and_told_once(caplog):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    replays = Replays(refuse)
    for number in range(4):
        assert replays("double", double, {"x": torch.tensor([number])})[0].item() == 2 * number
    assert len(caplog.messages) == 1 and "not permitted when stream is capturing" in caplog.messages[0]


def test_threads_share_graphs(graphs):
    replays, wrong = Replays(Recorder), []

    def call(number):
        for _ in range(50):
            if replays("double", double, {"x": torch.tensor([number])})[0].item() != 2 * number:
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(graphs) == 1


def test_copies_of_a_model_remember_nothing(graphs):
    replays, recent, decoder = Replays(Recorder), Recent(3), Decoder(capture=False)
    for _ in range(2):
        replays("double", double, {"x": torch.zeros(1)})
    recent.put("a", 1)
    for copied in (copy.deepcopy(replays), pickle.loads(pickle.dumps(replays))):
        assert not copied._graphs._values and not copied._seen._values
    assert not copy.deepcopy(recent)._values and pickle.loads(pickle.dumps(recent)).limit == 3
    assert copy.deepcopy(decoder).capture is pickle.loads(pickle.dumps(decoder)).capture is False


@pytest.mark.parametrize("name", ["none", "uniform", "cdpruner", "mfpruner", "trim", "fastv"])
@pytest.mark.parametrize("backbone", ["checkpoint", "anyres_checkpoint"])
def test_answers_and_kept_tokens_are_those_without_graphs(load, request, graphs, images, name, backbone):
    """Prompts of several lengths, padded, some images of several tiles; the third time all is replayed."""
    options = {"pruner": name, "visual_token_num": 6, "prune_layer": int(name == "fastv")} if name != "none" else {}
    tokenizer, model, processor, _ = load(request.getfixturevalue(backbone), **options)
    prompts = question_prompts(tokenizer, QUESTIONS)

    def answers():
        found = []
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
            shown, texts = [images[index] for index in order], [QUESTIONS[index] for index in order]
            rows = [prompts[index] for index in order]
            ids = generate(model, tokenizer, processor, shown, texts, rows, min_new_tokens=8)
            kept = model.last_prune.keep
            found.append((ids.tolist(), None if kept is None else [each.tolist() for each in kept]))
        return found

    plain = answers()
    with_graphs(model)
    assert answers() == plain and answers() == plain
    replayed = [graph.calls for graph in graphs]
    if name == "fastv":  # layers have caches of different lengths, and choose where nothing is captured
        assert not replayed
    else:
        assert max(replayed) >= 30  # steps of six answers, the first two of which are not replayed
        side = [graph for graph in graphs if "images" in graph.inputs]
        assert bool(side) == (name != "trim")


def test_a_stopwatch_times_what_is_replayed(load, checkpoint, graphs, images):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=6)
    with_graphs(model)
    for _ in range(3):
        with Stopwatch(model) as stopwatch:
            generate(model, tokenizer, processor, images[:1], QUESTIONS[:1], question_prompts(tokenizer, QUESTIONS[:1]))
        seconds, steps = stopwatch.lap()
    assert seconds["vision"] > 0 and seconds["decode"] > 0 and steps


def test_gradients_are_not_replayed(load, checkpoint, graphs, images):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=6)
    with_graphs(model)
    ids, pixels = (
        question_prompts(tokenizer, QUESTIONS[:1])[0][None],
        process_images(images[:1], processor, model.config),
    )
    for _ in range(3):
        model(ids, images=pixels, labels=ids.clone()).loss.backward()
    assert not graphs and model.get_model().mm_projector[0].weight.grad.abs().sum() > 0


def test_a_model_that_is_not_on_one_gpu_is_refused(load, checkpoint):
    model = load(checkpoint)[1]
    with pytest.raises(ValueError, match="cuda_graphs needs a model that is on one CUDA device; this one is on cpu"):
        model.cuda_graphs = True
    assert model.cuda_graphs is False


@pytest.fixture(scope="module")
def gpu_models():
    """A small LLaVA of random weights in two dtypes."""
    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision |= {"image_size": 112, "patch_size": 14}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape = Shape(2, 64, 64, 4)
    return {
        dtype: random_llava(shape, 2, torch.device("cuda"), dtype, vision=vision, text=text)
        for dtype in (torch.float32, torch.float16)
    }


def answers_on_gpu(model, batch: int) -> list:
    """New ids and kept tokens of four batches of prompts, of which some are padded."""
    ids = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 7, 8, 9]]).repeat(batch, 1).cuda()
    mask = torch.ones_like(ids)
    ids[1:, :1], mask[1:, :1] = 0, 0
    generator = torch.Generator().manual_seed(2)
    found = []
    for number in range(4):
        pixels = torch.randn(batch, 3, 112, 112, generator=generator).to("cuda", model.dtype)
        inputs = {"images": pixels, "texts": f"What is number {number}?", "attention_mask": mask}
        new = model.generate(ids, **inputs, do_sample=False, max_new_tokens=12, min_new_tokens=12)
        kept = model.last_prune.keep
        found.append((new.tolist(), None if kept is None else [each.tolist() for each in kept]))
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["none", "uniform", "cdpruner", "divprune", "vispruner", "mfpruner"])
@pytest.mark.parametrize(("dtype", "growing"), [(torch.float32, True), (torch.float32, False), (torch.float16, False)])
def test_on_a_gpu_ids_and_kept_tokens_are_those_without_graphs(gpu_models, name, batch, dtype, growing):
    """Of the same cache without replay, to the bit; in float32, of a cache that grows, too."""
    model = gpu_models[dtype]
    model.cuda_graphs = False
    model.set_pruner(resolve_pruner(name, None if name == "none" else 24))
    model._decoder = None if growing else Decoder(capture=False)
    plain = answers_on_gpu(model, batch)
    model.cuda_graphs = True
    assert answers_on_gpu(model, batch) == plain and answers_on_gpu(model, batch) == plain
    assert len(model._replays._graphs._values) >= 1 and "failed" not in model._replays._seen._values.values()
    assert [slot._graph is not None for slot in model._decoder._free] == [True]
