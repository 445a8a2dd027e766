import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaModel

from llava import compat
from llava.bench.flops import (
    SHAPES,
    Shape,
    clip_flops,
    kv_cache_mb,
    prefill_flops,
    prefill_macs_two_matrices,
    selection_flops,
    tera,
)
from llava.selecting.at_layer import prune_at_layer

SMALL = Shape(layers=3, width=32, ffn=56, heads=4)

# visual tokens; two-matrix MACs of a 7B on them, and on 64 more; true FLOPs likewise; the same of a 13B. In 1e12.
COUNTED = [
    (576, 2.986, 3.329, 7.635, 8.504, 5.813, 14.888, 16.576),
    (192, 0.976, 1.306, 2.506, 3.350, 1.908, 4.903, 6.550),
    (128, 0.649, 0.976, 1.667, 2.506, 1.268, 3.262, 4.903),
    (64, 0.323, 0.649, 0.831, 1.667, 0.633, 1.628, 3.262),
    (32, 0.161, 0.486, 0.415, 1.248, 0.316, 0.813, 2.444),
    (2880, 16.67, 17.09, 41.65, 42.68, 31.78, 79.88, 81.81),
]


def flops_of_layers(counter: FlopCounterMode) -> int:
    """What was counted within decoder layers: rotary angles, a product in some versions, are computed before them."""
    return sum(sum(counter.get_flop_counts()[f"LlamaModel.layers.{layer}"].values()) for layer in range(SMALL.layers))


def small_llama() -> LlamaModel:
    config = LlamaConfig(vocab_size=8, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4)
    return LlamaModel._from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: f"{row[0]} visual tokens")
def test_counts_are_those_of_the_literature(row):
    visual, macs, macs_with_text, flops, flops_with_text, macs_13b, flops_13b, flops_13b_with_text = row
    seven, thirteen = SHAPES["7b"], SHAPES["13b"]
    counted = [
        prefill_macs_two_matrices(seven, visual),
        prefill_macs_two_matrices(seven, visual + 64),
        prefill_flops(seven, visual),
        prefill_flops(seven, visual + 64),
        prefill_macs_two_matrices(thirteen, visual),
        prefill_flops(thirteen, visual),
        prefill_flops(thirteen, visual + 64),
    ]
    expected = [macs, macs_with_text, flops, flops_with_text, macs_13b, flops_13b, flops_13b_with_text]
    last_digit = 0.01 if visual == 2880 else 0.001
    assert [count / 1e12 for count in counted] == pytest.approx(expected, abs=last_digit)


def test_the_true_count_is_what_torch_counts():
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small_llama()(inputs_embeds=torch.randn(1, 21, 32), use_cache=False)
    assert flops_of_layers(counter) == prefill_flops(SMALL, 21)


def test_layers_before_the_pruning_see_all_tokens():
    def keep_five(hidden_states, attention):
        return torch.arange(21) < torch.full((1, 1), 5)

    model = small_llama()
    with torch.no_grad(), prune_at_layer(model, 1, keep_five), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, 21, 32), use_cache=False)
    assert flops_of_layers(counter) == prefill_flops(SMALL, 5, prune_layer=1, tokens_before=21)


def test_the_cache_is_as_large_as_a_real_one():
    cache = DynamicCache()
    with torch.no_grad():
        small_llama()(inputs_embeds=torch.randn(1, 21, 32), **compat.cache_argument(cache))
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_cache_mb(SMALL, 21, bytes_per_number=4) * 2**20 == stored


def test_the_published_cache_sizes():
    assert kv_cache_mb(SHAPES["7b"], 576) == 288
    assert kv_cache_mb(SHAPES["7b"], 2880) == 1440
    assert kv_cache_mb(SHAPES["13b"], 320) == 250


def test_five_clip_tiles_cost_what_vispruner_adds():
    assert clip_flops(5) / 1e12 == pytest.approx(1.906, abs=5e-4)


def test_a_prompt_costs_something_else_under_each_convention():
    counts = tera(SHAPES["7b"], visual=2880, text=64)
    assert counts == pytest.approx({"divprune": 17.09, "cdpruner": 41.65, "vispruner": 43.56, "true": 42.68}, abs=0.01)


def test_mfpruners_published_saving_leaves_the_text_out():
    seven = SHAPES["7b"]
    assert 1 - prefill_flops(seven, 32) / prefill_flops(seven, 576) == pytest.approx(0.946, abs=5e-4)
    assert 1 - prefill_flops(seven, 32 + 64) / prefill_flops(seven, 576 + 64) == pytest.approx(0.853, abs=5e-4)


def test_what_a_selection_needs_at_least():
    needed = {
        method: selection_flops(method, tiles=1, tokens=576, width=4096, kept=64, important=32) / 1e9
        for method in ("cdpruner", "divprune", "vispruner", "mfpruner")
    }
    assert needed == pytest.approx(
        {"cdpruner": 0.302, "divprune": 1.359, "vispruner": 1.212, "mfpruner": 0.009}, abs=1e-3
    )
    assert selection_flops("cdpruner", 5, 576, 4096, 64) == 5 * selection_flops("cdpruner", 1, 576, 4096, 64)
