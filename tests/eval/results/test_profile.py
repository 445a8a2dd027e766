import pytest

from llava.eval.results.profile import KEYS, PER_TOKEN, Profile, merge, profile_of, share_of_batch

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


def test_the_line_about_a_profile_names_every_stage_and_the_throughput():
    stages = dict(zip(KEYS, (1.0, 2.0, 3.0, 4.0, 5.0, None), strict=True))
    assert str(Profile(7, stages, 20.0)) == (
        "milliseconds per question, over 7: vision 1.0, projector 2.0, selection 3.0, prefill 4.0, decode 5.0, "
        "all 20.0; 50.0 questions per second"
    )
    assert "decode 5.0 (0.6 per token)" in str(Profile(7, stages | {PER_TOKEN: 0.6}, 20.0))
