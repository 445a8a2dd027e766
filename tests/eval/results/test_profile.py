import pytest

from llava.bench.harness import summarize
from llava.eval.results.profile import KEYS, PER_TOKEN, Profile, merge, profile_of, share_of_batch
from llava.utils import is_noisy

STAGES_MS = {"vision": 40.0, "projector": 4.0, "selection": 2.0, "prefill": 20.0, "decode": 60.0}


def answer(latency_ms, decode_steps=3, questions=4):
    return {"latency_ms": latency_ms, "profile": share_of_batch(STAGES_MS, decode_steps, questions)}


def test_a_question_has_an_equal_share_of_its_batch_and_a_token_one_of_its_step():
    assert share_of_batch(STAGES_MS, decode_steps=3, questions=4) == {
        "vision_ms": 10.0,
        "projector_ms": 1.0,
        "selection_ms": 0.5,
        "prefill_ms": 5.0,
        "decode_ms": 15.0,
        "decode_ms_per_token": 5.0,
    }


def test_without_a_decoding_step_there_is_no_time_per_token():
    assert share_of_batch(STAGES_MS | {"decode": 0.0}, 0, 4)[PER_TOKEN] is None


def test_a_profile_is_the_mean_over_the_answers_that_have_one():
    entries = [{"latency_ms": 900.0}, {"error": "broken"}, answer(30.0), answer(50.0, decode_steps=0)]
    profile = profile_of(entries)
    assert (profile.count, profile.latency_ms, profile.questions_per_second) == (2, 40.0, 25.0)
    assert profile.stages["vision_ms"] == 10.0 and profile.stages[PER_TOKEN] == 5.0
    assert profile_of(entries[:2]) is None


def test_merging_profiles_is_profiling_all_their_answers():
    entries = [answer(30.0), answer(50.0, decode_steps=0), answer(60.0, questions=2)]
    whole, parts = profile_of(entries), merge([profile_of(entries[:1]), profile_of(entries[1:])])
    assert parts.count == 3 and parts.latency_ms == pytest.approx(whole.latency_ms)
    assert merge([]) is None
    assert {key: parts.stages[key] for key in KEYS if key != PER_TOKEN} == pytest.approx(
        {key: whole.stages[key] for key in KEYS if key != PER_TOKEN}
    )


def told(*to_first_token_ms, **more):
    """Answers that took so long, one after the other, all else being equal."""
    share = share_of_batch(STAGES_MS, decode_steps=3, questions=4)
    parts = dict.fromkeys(("vision_ms", "projector_ms", "selection_ms"), 0.0)
    return [{"latency_ms": ms, "profile": share | parts | {"prefill_ms": ms}} | more for ms in to_first_token_ms]


def test_a_profile_is_noisy_by_the_measure_of_the_benchmark():
    assert not profile_of(told(10.0, 12.0, 13.0)).noisy and not is_noisy([10.0, 12.0, 13.0])
    assert profile_of(told(10.0, 13.1, 14.0)).noisy and is_noisy([10.0, 13.1, 14.0])
    assert summarize([(ms, ms, None) for ms in (10.0, 13.1, 14.0)]).noisy
    assert str(profile_of(told(10.0, 13.1, 14.0))).endswith("questions per second (noisy)")
    assert merge([profile_of(told(10.0)), profile_of(told(10.0, 13.1, 14.0))]).noisy


def test_questions_of_more_tiles_take_longer_without_being_noise():
    few, many = told(10.0, 11.0, 11.0, tiles=1), told(50.0, 51.0, tiles=5)
    assert not profile_of([*few, *many]).noisy
    assert profile_of([*told(10.0, 20.0, 20.0, tiles=1), *many]).noisy


def test_memory_is_the_mean_cache_and_the_highest_peak():
    entries = told(10.0, 10.0)
    assert (profile_of(entries).kv_mb, profile_of(entries).peak_mb) == (None, None)
    for entry, kv_mb, peak_mb in zip(entries, (1.0, 3.0), (700.0, 650.0), strict=True):
        entry["profile"] |= {"kv_mb": kv_mb, "peak_mb": peak_mb}
    assert (profile_of(entries).kv_mb, profile_of(entries).peak_mb) == (2.0, 700.0)
    parts = merge([profile_of(entries[:1]), profile_of(entries[1:]), profile_of(told(10.0))])
    assert (parts.kv_mb, parts.peak_mb) == (2.0, 700.0)


def test_the_line_about_a_profile_names_every_stage_and_the_throughput():
    stages = dict(zip(KEYS, (1.0, 2.0, 3.0, 4.0, 5.0, None), strict=True))
    assert str(Profile(7, stages, 20.0)) == (
        "milliseconds per question, over 7: vision 1.0, projector 2.0, selection 3.0, prefill 4.0, decode 5.0, "
        "all 20.0; 50.0 questions per second"
    )
    assert "decode 5.0 (0.6 per token)" in str(Profile(7, stages | {PER_TOKEN: 0.6}, 20.0))
