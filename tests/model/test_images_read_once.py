"""Images that are shown again are not encoded again, and nothing of an answer changes by it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llava.mm_utils import process_images
from llava.model import reading
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.memory import Memory
from llava.pruners import PRUNERS, resolve_pruner
from llava.pruners.cues import INSIDE_CUES
from llava.selecting.options import PruningOptions

from .conftest import QUESTIONS, question_prompts

LAYERS = {"hiprune": {"object_layer": 2}}
"""Options without which a method asks for a block that a tower of four does not have."""


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """How many tiles every pass of the tower's blocks reads."""
    found, run = [], CLIPVisionTower._run

    def counted(self, images, *args):
        found.append(len(images))
        return run(self, images, *args)

    monkeypatch.setattr(CLIPVisionTower, "_run", counted)
    return found


def prunings():
    """Every pruner at two budgets, and none."""
    found = [PruningOptions()]
    for name, cls in PRUNERS.items():
        for budget in (6, 3):
            pruner = resolve_pruner(name, visual_token_num=budget, **LAYERS.get(name, {}))
            found.append(PruningOptions(pruner, prune_layer=int(bool(cls.needs & INSIDE_CUES))))
    return found


def ask(loaded, images, options, questions=QUESTIONS):
    """The embeddings and positions that a batch comes to, and the record of it."""
    tokenizer, model, processor, _ = loaded
    model.pruning = options
    pixels = process_images(images, processor, model.config)
    prompts = torch.nn.utils.rnn.pad_sequence(question_prompts(tokenizer, questions), batch_first=True)
    sizes = [image.size for image in images]
    _, positions, _, _, embeds, _, _ = model.prepare_with_choice(
        prompts, None, prompts != 0, None, None, pixels, sizes, list(questions)
    )
    record = model.last_prune
    keep = [] if record is None else [kept.tolist() for kept in record.keep or []]
    return embeds, positions, keep


def same(one, other):
    return torch.equal(one[0], other[0]) and str(one[1:]) == str(other[1:])


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["native", "fixed"])
def test_every_pruner_reads_what_it_reads_by_itself(load, anyres_checkpoint, images, read, layout):
    loaded = load(anyres_checkpoint, anyres=layout)
    model, every = loaded[1], prunings()
    alone = [ask(loaded, images, options) for options in every]
    assert len(read) == len(every)
    read.clear()
    with model.images_read_once(every):
        together = [ask(loaded, images, options) for options in every]
    assert len(read) == 1
    assert all(map(same, together, alone))


@torch.inference_mode()
def test_the_projectors_sensitivity_is_measured_once_for_all_budgets_of_the_same_directions(
    load, checkpoint, images, monkeypatch
):
    measured, measure = [], reading.sensitivity
    monkeypatch.setattr(reading, "sensitivity", lambda *args: measured.append(args) or measure(*args))
    loaded = load(checkpoint)
    same_way = [PruningOptions(resolve_pruner("zoo_prune", visual_token_num=budget)) for budget in (6, 4, 3)]
    other = PruningOptions(resolve_pruner("zoo_prune", visual_token_num=4, seed=1))
    alone = [ask(loaded, images, options) for options in (*same_way, other)]
    assert len(measured) == 4
    measured.clear()
    with loaded[1].images_read_once([*same_way, other]):
        together = [ask(loaded, images, options) for options in (*same_way, other)]
    assert len(measured) == 2 and all(map(same, together, alone))


@torch.inference_mode()
def test_other_images_are_read_and_so_are_all_of_them_afterwards(load, checkpoint, images, read):
    loaded, options = load(checkpoint), PruningOptions(resolve_pruner("vispruner", visual_token_num=4))
    alone = ask(loaded, images, options)
    turned = images[::-1]
    alone_turned = ask(loaded, turned, options)
    read.clear()
    with loaded[1].images_read_once([options]):
        assert same(ask(loaded, images, options), alone) and same(ask(loaded, images, options), alone)
        assert same(ask(loaded, turned, options), alone_turned)
        assert same(ask(loaded, images, options), alone)
        part = ask(loaded, images[:1], options, QUESTIONS[:1])
        assert part[2] == alone[2][:1]
    assert [len(images), len(images), len(images), 1] == read
    ask(loaded, images[:1], options, QUESTIONS[:1])
    assert len(read) == 5 and loaded[1].memory is None


@torch.inference_mode()
def test_another_question_about_the_same_image_is_weighed_anew(load, checkpoint, images, read):
    loaded, options = load(checkpoint), PruningOptions(resolve_pruner("cdpruner", visual_token_num=4))
    other = list(reversed(QUESTIONS))
    alone = [ask(loaded, images, options, questions) for questions in (QUESTIONS, other)]
    assert alone[0][2] != alone[1][2], "the questions make no difference"
    read.clear()
    with loaded[1].images_read_once([options]):
        together = [ask(loaded, images, options, questions) for questions in (QUESTIONS, other)]
    assert len(read) == 1 and all(map(same, together, alone))


@torch.inference_mode()
def test_a_thread_knows_nothing_of_what_another_remembers(load, checkpoint, images, read):
    loaded, options = load(checkpoint), PruningOptions(resolve_pruner("divprune", visual_token_num=4))
    ask(loaded, images, options)
    with loaded[1].images_read_once([options]), ThreadPoolExecutor(1) as pool:
        ask(loaded, images, options)
        pool.submit(torch.inference_mode()(ask), loaded, images, options).result()
        ask(loaded, images, options)
    assert len(read) == 3


def test_only_what_is_made_of_the_towers_features_is_remembered():
    memory, images, states, projected = Memory(), torch.ones(1, 3, 2, 2), torch.arange(12.0).view(1, 4, 3), []

    def project(features):
        projected.append(features)
        return 2 * features

    assert torch.equal(memory.derived("embeds", states[:, 1:], project), 2 * states[:, 1:])
    memory.encoded(images, frozenset(), 9, lambda *_: (states, {}))
    for features in (states[:, 1:] + 1, states[:, 1:], states[:, 1:].clone(), states[:, 1:].double()):
        assert torch.equal(memory.derived("embeds", features, project), 2 * features)
    assert len(projected) == 4  # the clone holds what is known
    assert memory.derived("sum", states[:, 1:], torch.sum) == states[:, 1:].sum()
    memory.encoded(images + 1, frozenset(), 9, lambda *_: (states, {}))
    memory.derived("embeds", states[:, 1:], project)
    assert len(projected) == 5


def test_more_cues_and_other_blocks_are_encoded_anew():
    memory, images, asked = Memory(frozenset({"a", "object_attention"})), torch.ones(1, 3, 2, 2), []

    def encode(images, needs, layer):
        asked.append((needs, layer))
        return images, {name: (name, layer) for name in needs}

    for needs, layer in (("", 9), ("a", 9), ("b", 9), ("ab", 9), ("", 4)):
        _, cues = memory.encoded(images, frozenset(needs), layer, encode)
        assert set(cues) == set(needs)
    assert [set(needs) for needs, _ in asked] == [{"a"}, {"a", "b"}]
    of_a_layer = frozenset({"object_attention"})
    for layer in (4, 4, 5):
        assert memory.encoded(images, of_a_layer, layer, encode)[1] == {"object_attention": ("object_attention", layer)}
    assert [layer for _, layer in asked[2:]] == [4, 5]
    asked.clear()
    memory = Memory(frozenset({"a", "object_attention"}), 3)
    for needs, layer in ((frozenset("a"), 9), (of_a_layer, 3), (frozenset(), 9), (of_a_layer, 4)):
        memory.encoded(images, needs, layer, encode)
    assert [layer for _, layer in asked] == [3, 4]
