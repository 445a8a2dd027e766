"""The suites that run a model: what their rows hold, never how long they took."""

from types import SimpleNamespace

import pytest
import torch

from llava.bench import clip, e2e, prefill, serve
from llava.bench.flops import kv_cache_mb, prefill_flops
from llava.bench.harness import Counter, extra_peak_mb
from llava.pruners import resolve_pruner


@pytest.fixture(scope="module")
def prefill_rows(model, shape, cpu):
    return prefill.run(model, shape, cpu, reps=1, grids=((16, 4), (20, 5)), text=10)


@pytest.fixture(scope="module")
def e2e_rows(model, shape, cpu):
    return e2e.run(model, shape, cpu, reps=1, seed=0, text=10)


def test_the_tower_is_compared_with_all_attention_maps_and_agrees(model, cpu):
    (row,) = clip.run(model.get_vision_tower(), cpu, reps=1, seed=0)
    assert row["equal"]
    assert (row["N"], row["B"], row["D"], row["dtype"]) == (16, 1, 64, "float32")


@torch.no_grad()
def test_other_weights_are_noticed(model):
    tower = model.get_vision_tower()
    images = clip.random_images(tower, 1, seed=0)
    plain = clip.eager_with_all_maps(tower)(images)
    features, attention = clip.cues_of_tower(tower, images)
    assert clip.agree((features, attention), plain)
    assert not clip.agree((features, attention.flip(1)), plain)
    assert not clip.agree((1.1 * features, attention), plain)


def test_the_plain_way_keeps_all_maps_and_ours_none(model):
    tower = model.get_vision_tower()
    images = clip.random_images(tower, 1, seed=0)
    eager, peaks = clip.eager_with_all_maps(tower), []
    for call in (lambda: clip.cues_of_tower(tower, images), lambda: eager(images)):
        with torch.no_grad(), Counter() as counter:
            call()
        peaks.append(counter.peak_bytes)
    assert peaks[0] < peaks[1]


def test_a_prefill_row_holds_tokens_flops_and_cache_of_the_whole_model(prefill_rows, shape):
    row = prefill_rows[1]
    assert (row["n"], row["visual"], row["layers_run"], row["layers"]) == (14, 4, 2, 3)
    assert row["tera_true"] == prefill_flops(shape, 14) / 1e12
    assert row["tera_cdpruner"] == prefill_flops(shape, 4) / 1e12
    assert row["kv_mb"] == kv_cache_mb(shape, 14)
    assert row["cut_visual_only"] > row["cut_with_text"] == pytest.approx(1 - 1 / row["flop_ratio"])


def test_every_grid_is_compared_with_its_own_first_row(prefill_rows):
    assert [row["visual"] for row in prefill_rows] == [16, 4, 20, 5]
    assert [row["flop_ratio"] == 1 for row in prefill_rows] == [True, False, True, False]
    assert prefill_rows[0]["speedup"] == prefill_rows[2]["speedup"] == 1
    assert prefill_rows[1]["speedup"] == prefill_rows[0]["ms"] / prefill_rows[1]["ms"]


def test_fewer_tokens_take_less_memory(prefill_rows):
    assert prefill_rows[1]["peak_mb"] < prefill_rows[0]["peak_mb"]


def test_all_stages_add_up_and_prefill_is_scaled_to_all_layers(e2e_rows):
    stages = ("vision_ms", "text_ms", "projector_ms", "select_ms", "prefill_ms")
    assert [row["method"] for row in e2e_rows] == ["none", "cdpruner", "divprune", "vispruner", "mfpruner"]
    for row in e2e_rows:
        assert row["total_ms"] == pytest.approx(sum(row[stage] for stage in stages))
        assert row["speedup"] == pytest.approx(e2e_rows[0]["total_ms"] / row["total_ms"])
        assert (row["layers_run"], row["layers"]) == (2, 3)


def test_only_pruners_that_read_relevance_pay_for_the_text(e2e_rows):
    assert {row["method"] for row in e2e_rows if row["text_ms"] > 0} == {"cdpruner", "mfpruner"}


def test_the_share_of_selection_is_that_of_pruned_prefill(e2e_rows):
    assert "selection_share" not in e2e_rows[0]
    for row in e2e_rows[1:]:
        assert row["selection_share"] == pytest.approx(row["select_ms"] / row["prefill_ms"])
        assert 0 <= row["break_even_tokens"] <= 16


def test_pruning_breaks_even_where_the_saving_equals_the_overhead():
    # 576 tokens take 600 ms and 64 take 88: a millisecond each, so an overhead of 12 ms is 12 tokens.
    assert e2e.break_even(576, 64, overhead_ms=12, before_ms=600, after_ms=88) == 564
    assert e2e.break_even(576, 64, overhead_ms=0, before_ms=600, after_ms=88) == 576
    assert e2e.break_even(576, 64, overhead_ms=-3, before_ms=600, after_ms=88) == 576
    assert e2e.break_even(576, 64, overhead_ms=999, before_ms=600, after_ms=88) == 0
    assert e2e.break_even(576, 64, overhead_ms=1, before_ms=50, after_ms=51) == 0


def test_serving_rows_hold_throughput_latency_and_cache(model, cpu):
    pruner = resolve_pruner("cdpruner", visual_token_num=4)
    rows = serve.run(model, "small", pruner, cpu, memory_gb=1, batches=(1, 2), seconds=0)
    assert [(row["method"], row["B"], row["visual"]) for row in rows] == [
        ("none", 1, 16),
        ("cdpruner", 1, 4),
        ("none", 2, 16),
        ("cdpruner", 2, 4),
    ]
    assert all(row["p50_ms"] <= row["p99_ms"] and row["n"] == serve.FEWEST_CALLS for row in rows)
    assert rows[0]["kv_mb_per_request"] == kv_mb(model, 16) > rows[1]["kv_mb_per_request"] == kv_mb(model, 4)
    assert rows[0]["largest_batch"] < rows[1]["largest_batch"]


def kv_mb(model, visual):
    tokens = visual + serve.TEXT_TOKENS + serve.NEW_TOKENS
    return 2 * 2 * 48 * 4 * tokens / 2**20  # keys and values, layers, width, bytes


def test_more_memory_holds_more_requests_and_too_little_none(model, cpu):
    model.set_pruner(None)
    sizes = [serve.largest_batch(model, cpu, memory_mb=memory) for memory in (0.1, 64, 128)]
    assert sizes[0] == 0 < sizes[1] < sizes[2]


@torch.no_grad()
@pytest.mark.parametrize("pruner", [None, resolve_pruner("cdpruner", visual_token_num=4)], ids=["none", "cdpruner"])
def test_the_largest_batch_fits_and_the_next_does_not(model, cpu, pruner):
    model.set_pruner(pruner)
    number = serve.largest_batch(model, cpu, memory_mb=64)
    assert number > serve.PROBES[1]
    fits, does_not = (extra_peak_mb(lambda n=n: serve.answer(model, n)(), cpu) for n in (number, number + 1))
    assert serve.weights_mb(model) + fits <= 64 < serve.weights_mb(model) + does_not


@pytest.fixture
def pretend(monkeypatch, model):
    """Let a batch take 3 MiB and 0.5 for each request, the first call 40 that stay; no more than ``most`` fit."""

    def pretend(most=1000, each=0.5):
        left = []

        def take(batch):
            if batch > most:
                raise torch.OutOfMemoryError
            new, left[:] = 0 if left else 40, [40]
            model.last_prune = SimpleNamespace(visual_tokens=[4])
            return 3 + each * batch + new

        monkeypatch.setattr(serve, "answer", lambda model, batch: lambda: take(batch))
        monkeypatch.setattr(serve, "extra_peak_mb", lambda call, device: call())
        monkeypatch.setattr(serve, "kv_mb_per_request", lambda model, visual: visual / 32)
        monkeypatch.setattr(serve, "weights_mb", lambda model: 20.0)

    return pretend


@pytest.mark.parametrize("most", [1000, 128, 127, 20, 2])
def test_what_a_first_call_leaves_behind_and_too_large_probes_change_nothing(pretend, model, cpu, most):
    pretend(most)
    assert serve.largest_batch(model, cpu, memory_mb=123) == 200


def test_no_request_takes_less_than_its_keys_and_values(pretend, model, cpu):
    pretend(each=0)
    assert serve.largest_batch(model, cpu, memory_mb=123) == 928  # 100 MiB of an eighth each, beside the probe's 128


def test_where_no_batch_fits_the_largest_is_none(pretend, model, cpu):
    pretend(most=1)
    assert serve.largest_batch(model, cpu, memory_mb=123) == 0


def test_weights_count_the_text_side_only_where_it_is_read(model):
    model.set_pruner(None)
    alone = serve.weights_mb(model)
    model.set_pruner(resolve_pruner("divprune", visual_token_num=4))
    assert serve.weights_mb(model) == alone
    model.set_pruner(resolve_pruner("cdpruner", visual_token_num=4))
    assert serve.weights_mb(model) > alone


def test_every_request_gets_the_same_number_of_new_tokens(model):
    model.set_pruner(None)
    assert serve.answer(model, batch=3)().shape == (3, serve.NEW_TOKENS)


def test_percentiles_are_values_that_occurred():
    values = [float(value) for value in range(100, 0, -1)]
    assert (serve.percentile(values, 0.5), serve.percentile(values, 0.99)) == (50, 99)
    assert serve.percentile([7.0], 0.99) == 7
