import pytest
import torch

from llava.bench.harness import Counter, Timing, extra_peak_mb, measure, summarize, threads

MIB = 2**20 // 4  # float32 numbers


def test_operations_count_and_views_do_not():
    matrix = torch.ones(4, 6)
    with Counter() as counter:
        (matrix.mT.reshape(24) + 1)[3:].sum()  # the reshape copies
    assert counter.ops == 3


def test_products_over_the_width_count_as_gram_flops_and_narrower_ones_do_not():
    tokens = torch.randn(2, 5, 8)
    with Counter(width=8) as counter:
        gram = tokens @ tokens.mT
        gram @ gram
        torch.mv(tokens[0], tokens[0, 0])
    assert counter.gram_flops == 2 * 2 * 5 * 5 * 8 + 2 * 5 * 8


def test_a_product_that_adds_counts_by_its_factors():
    wide, sums = torch.randn(1, 3, 8), torch.randn(1, 3, 3)
    with Counter(width=8) as counter:
        torch.baddbmm(sums, wide, wide.mT)
    assert counter.gram_flops == 2 * 3 * 3 * 8


def test_the_peak_is_what_was_alive_at_once(cpu):
    def call():
        first = torch.zeros(2 * MIB)
        second = torch.zeros(MIB)
        del first
        third = torch.zeros(MIB)  # 3 MiB were alive before, 2 are now
        return second[:1] + third[:1]

    assert extra_peak_mb(call, cpu) == 3


def test_what_was_there_before_is_no_extra_memory(cpu):
    there = torch.zeros(MIB)
    assert extra_peak_mb(lambda: there.add_(1).view(-1, 4).neg_(), cpu) == 0


def test_memory_is_counted_anew_by_every_call(cpu):
    assert [extra_peak_mb(lambda: torch.zeros(MIB) + 1, cpu) for _ in range(2)] == [2, 2]


def test_variants_are_timed_in_turn_after_a_warm_up(cpu):
    order = []
    timings = measure({name: lambda name=name: order.append(name) for name in "ab"}, cpu, reps=3)
    assert order == list("ab" * 4)
    assert {name: timing.n for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_a_timing_holds_medians_and_the_minimum():
    with threads(1):
        timing = summarize([(9.0, 10.0, None), (10.0, 12.0, None), (11.0, 11.0, None)])
    assert timing == Timing(cpu_ms=10, wall_ms=11, min_ms=10, n=3, noisy=False)


def test_waiting_for_other_programs_is_noise():
    with threads(1):
        assert summarize([(10.0, 14.0, None)] * 3).noisy
        assert not summarize([(10.0, 12.0, None)] * 3).noisy


def test_times_that_scatter_are_noise():
    assert summarize([(10.0, 10.0, 9.0), (14.0, 14.0, 9.0), (15.0, 15.0, 9.0)]).noisy


def test_cpu_time_is_no_measure_of_a_gpu_or_of_several_threads():
    on_cpu, on_gpu = Timing(3.0, 5.0, 5.0, 1, False), Timing(3.0, 5.0, 5.0, 1, False, gpu_ms=4.0)
    with threads(1):
        assert (on_cpu.steady_ms, on_gpu.steady_ms) == (3, 5)
    with threads(2):
        assert on_cpu.steady_ms == 5


def test_the_number_of_threads_is_restored_even_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
