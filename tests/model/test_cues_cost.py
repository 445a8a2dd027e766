"""What cues cost beside the vision tower's own pass, and how often CLIP's text side runs."""

import copy
import json

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
    relevance.weights["text"].register_forward_hook(
        lambda _, __, kwargs, ___: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    texts = ["What is it?", "Is it red? " * 40, "How many?", "What is it?"]
    first = relevance.embed({"relevance"}, texts, torch.device("cpu"))
    (chunks,) = rows
    assert chunks > 3  # the long one has several
    again = relevance.embed({"relevance"}, texts[::-1], torch.device("cpu"))
    assert len(rows) == 1 and torch.equal(first["relevance"].flip(0), again["relevance"])


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
