"""What cues cost beside the vision tower's own pass, and how often CLIP's text side runs."""

import copy
import json
from functools import partial

import pytest
import torch
from PIL import Image

from llava.bench.flops import Shape
from llava.bench.harness import Counter
from llava.bench.models import JOINT_WIDTH, random_llava
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from llava.pruners import resolve_pruner
from llava.selecting.attention import run_block
from llava.selecting.relevance import _padded

from .conftest import E2E

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION |= {"image_size": 56, "patch_size": 14}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = Shape(layers=1, width=32, ffn=32, heads=2)
MOST = {"cls_attention": 5, "relevance": 10, "keys": 2}
"""How many operations each cue may cost."""


def small_tower(dtype=torch.float32, attention="sdpa"):
    model = random_llava(SMALL, 1, torch.device("cpu"), dtype, vision=VISION, text=TEXT)
    model.get_vision_tower().vision_tower.set_attn_implementation(attention)
    return model.get_vision_tower()


def operations(call) -> int:
    with Counter() as counter:
        call()
    return counter.ops


@pytest.mark.parametrize("tiles", [1, 5])
@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float32), ("cpu", torch.bfloat16), ("meta", torch.float16)]
)
def test_cues_cost_a_few_operations_whatever_the_number_of_tiles(device, dtype, tiles):
    tower = small_tower(dtype)
    tower.vision_tower.to(device), tower.relevance.weights.to(device)
    images = torch.zeros(tiles, 3, 56, 56, device=device, dtype=dtype)
    embedded = {"relevance": torch.zeros(tiles, JOINT_WIDTH, device=device)}
    alone = operations(lambda: tower(images))
    costs = {
        name: operations(lambda name=name: tower.with_cues(images, {name}, embedded if name in embedded else {}))
        - alone
        for name in MOST
    }
    assert all(cost <= MOST[name] for name, cost in costs.items()), costs
    everything = operations(lambda: tower.with_cues(images, frozenset(MOST), embedded)) - alone
    assert everything == sum(costs.values())


@pytest.mark.parametrize("tiles", [1, 5])
def test_received_attention_and_the_joint_space_cost_a_few_operations(tiles):
    """Of a few tiles; more are taken a chunk at a time."""
    tower = small_tower(torch.float16)
    tower.vision_tower.to("meta"), tower.relevance.weights.to("meta")
    images = torch.zeros(tiles, 3, 56, 56, device="meta", dtype=torch.float16)
    sequence = {"text_sequence": torch.zeros(tiles, 1, 77, JOINT_WIDTH, device="meta")}
    alone = operations(lambda: tower(images))
    for names, most in (({"deep_attention"}, 10), ({"object_attention"}, 10), ({"joint_embeds", "text_sequence"}, 3)):
        embedded = sequence if "text_sequence" in names else {}
        cost = operations(lambda names=names, embedded=embedded: tower.with_cues(images, names, embedded, 1)) - alone
        assert 0 < cost <= most, (names, cost)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_whose_queries_are_read_computes_the_same_bits(dtype, attention):
    tower = small_tower(dtype, attention)
    states = torch.randn(3, 17, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    block = tower.vision_tower.encoder.layers[1]
    with torch.no_grad():
        found, query, key, scale = run_block(block, states)
        inputs = block.layer_norm1(states)
        assert torch.equal(found, block(states, None))
        assert torch.equal(query.flatten(2), block.self_attn.q_proj(inputs)) and query.shape == (3, 17, 4, 8)
        assert torch.equal(key.flatten(2), block.self_attn.k_proj(inputs)) and scale == 8**-0.5


def test_questions_go_through_the_text_side_once_and_in_one_pass():
    relevance, rows = small_tower().relevance, []
    note_rows = partial(_note, rows)
    relevance.weights["text"].register_forward_hook(note_rows, with_kwargs=True)
    texts = ["What is it?", "Is it red? " * 40, "How many?", "What is it?"]
    first = relevance.embed({"relevance"}, texts, torch.device("cpu"))
    ((chunks, _),) = rows
    assert chunks > 3  # the long one has several
    again = relevance.embed({"relevance"}, texts[::-1], torch.device("cpu"))
    assert len(rows) == 1 and torch.equal(first["relevance"].flip(0), again["relevance"])


def _note(shapes, module, args, kwargs, output):
    shapes.append(tuple(kwargs["input_ids"].shape))


@pytest.mark.parametrize(("texts", "rows"), [(1, 1), (2, 4), (16, 16), (40, 48)])
@pytest.mark.parametrize(("words", "width"), [(2, 16), (30, 48), (60, 77), (200, 77)])
def test_on_a_device_that_launches_questions_have_few_forms(texts, rows, words, width):
    """Of the meta device: what reads a value back fails."""
    relevance, shapes = small_tower().relevance, []
    relevance.weights["text"].register_forward_hook(partial(_note, shapes), with_kwargs=True)
    asked = [f"{number} " + "red " * words for number in range(texts)]
    embedded = relevance.embed({"relevance"}, asked, torch.device("meta"))["relevance"]
    assert embedded.shape == (texts, JOINT_WIDTH) and embedded.is_meta
    if words < 77:
        assert shapes == [(rows, width)]
    assert len(shapes) == 1


def test_questions_in_short_rows_come_to_the_same():
    """The rows of a device that launches, computed on the CPU: no mask, a multiple of rows, no longer than needed."""
    relevance = small_tower().relevance
    texts = ["What is it?", "How many red circles are there in the picture?", "a " * 40]
    ids = relevance._ids(texts)
    expected = relevance.embed_beginnings(texts)
    for chosen, rows, width in (([0, 1], 4, 16), ([2], 1, 48), ([0, 1, 2], 16, 77)):
        with torch.no_grad():
            found = relevance._encode(_padded([ids[number] for number in chosen], rows, width))[0]
        torch.testing.assert_close(found[: len(chosen)], expected[chosen], atol=1e-5, rtol=1e-5)


def test_the_text_side_is_float32_since_in_float16_other_tokens_are_kept():
    checkpoint = "llava-v1.6-vicuna-tiny"
    expected = json.loads((E2E / "expected" / f"{checkpoint}_cdpruner.json").read_text())
    path = str(E2E / "checkpoints" / checkpoint)
    _, model, processor, _ = load_pretrained_model(
        path, None, checkpoint, device="cpu", dtype="float32", anyres="fixed"
    )
    model.set_pruner(resolve_pruner("cdpruner", 1))
    relevance = model.get_vision_tower().relevance
    assert {weight.dtype for weight in relevance.weights.parameters()} == {torch.float32}
    half = copy.deepcopy(relevance)
    half.weights["text"].half(), half.weights["text_projection"].half()

    def kept(case: dict) -> list[int]:
        image = Image.open(E2E / "images" / case["image"])
        inputs = {"images": process_images([image], processor, model.config), "image_sizes": [image.size]}
        model.set_pruner(resolve_pruner("cdpruner", case["visual_token_num"]))
        model.generate(torch.tensor([[1, -200, 5]]), **inputs, texts=case["text_tower_query"], max_new_tokens=1)
        return model.last_prune.keep[0].tolist()

    differing = 0
    for case in (expected["c1"], expected["c3"], expected["c7"]):
        in_float32, text = kept(case), case["text_tower_query"]
        relevance._embeddings[text] = half.embed_texts([text])[0].float()
        differing += kept(case) != in_float32
    assert differing
