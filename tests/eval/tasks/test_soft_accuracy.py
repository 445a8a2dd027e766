from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.tasks.soft_accuracy import (
    CONTRACTIONS,
    EvalAIAnswerProcessor,
    TextVQAAccuracyEvaluator,
    soft_accuracy,
    strip_punctuation,
)

normalize = EvalAIAnswerProcessor()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dakota Digital.", "dakota digital"),
        ("Two dogs", "2 dogs"),
        ("yes, 1,000", "yes 1000"),
        ("2.5.", "2.5"),
        ("dont", "don't"),
        ("it's 5:30 p.m.", "it 's 5:30 pm"),
        ("half-and-half", "half and half"),
        ("half - half", "half half"),
        ("a-b c", "b c"),
        ("Isn't it?", "isn't it"),
        ("Mr. Smith's car", "mr smith 's car"),
        ("ten\ttwo\nthree", "10 2 3"),
        ("$5.00!", "$5.00"),
        ("None", "0"),
        ("u.s.a.", "usa"),
        ("3,4", "34"),
        ("<b>", "b"),
        ("a", ""),
        ("well-known (yes)", "well known yes"),
    ],
)
def test_answers_take_the_form_measured_upstream(text, normal):
    assert normalize(text) == normal


def test_a_contraction_gets_back_any_one_apostrophe_it_lacks():
    assert normalize("couldntve") == "couldntve"
    assert normalize("couldn'tve") == normalize("couldnt've") == "couldn't've"
    assert normalize("somebody'd") == "somebodyd"


def test_there_are_as_many_contractions_as_upstream_matches():
    # 120 there, of which two map to themselves and four have a capital I, which lower-cased words never match
    assert len(CONTRACTIONS) == 114


def test_punctuation_between_letters_becomes_a_space_unless_it_touches_one_somewhere():
    assert strip_punctuation("a/b") == "a b"
    assert strip_punctuation("a/b /c") == "ab c"


def test_digits_grouped_by_commas_make_all_punctuation_go():
    assert strip_punctuation("10,000-a") == "10000a"


@pytest.mark.parametrize(("agreeing", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (7, 1), (10, 1)])
def test_agreement_with_ten_annotators_is_worth(agreeing, score):
    assert soft_accuracy("cat", ["cat"] * agreeing + ["dog"] * (10 - agreeing)) == pytest.approx(score)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.sampled_from("abc"))
def test_soft_accuracy_leaves_every_annotator_out_once(references, prediction):
    left_out = [Counter(references[:i] + references[i + 1 :])[prediction] for i in range(len(references))]
    expected = sum(min(1, n / 3) for n in left_out) / len(references)
    assert soft_accuracy(prediction, references) == pytest.approx(expected)


def test_the_evaluator_normalises_both_sides_and_averages():
    entries = [
        {"pred_answer": "The Stop.", "gt_answers": ["stop"] * 2 + ["go"] * 8},
        {"pred_answer": "go", "gt_answers": ["Go!"] * 10},
    ]
    assert TextVQAAccuracyEvaluator().eval_pred_list(entries) == pytest.approx((0.6 + 1) / 2)
