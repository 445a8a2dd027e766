import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.asking.questions import Question, batches, in_batches

SETTINGS = [{"max_new_tokens": 8}, {"max_new_tokens": 16}, {"max_new_tokens": 8, "until": ["\n"]}]
QUESTIONS = st.lists(
    st.builds(
        lambda size, setting: Question("w" * size, generation=setting), st.integers(0, 9), st.sampled_from(SETTINGS)
    )
)


class TestBatches:
    @given(QUESTIONS, st.integers(1, 4))
    def test_hold_every_question_once(self, questions, size):
        found = [index for batch in batches(questions, size) for index in batch]
        assert sorted(found) == list(range(len(questions)))

    @given(QUESTIONS, st.integers(1, 4))
    def test_are_no_larger_than_asked_for_and_never_mix_generation_settings(self, questions, size):
        for batch in batches(questions, size):
            assert 1 <= len(batch) <= size
            assert all(questions[index].generation == questions[batch[0]].generation for index in batch)

    @given(QUESTIONS)
    def test_come_with_the_longest_question_of_a_group_first(self, questions):
        for setting in SETTINGS:
            lengths = [
                len(questions[index].text)
                for batch in batches(questions, 2)
                for index in batch
                if questions[index].generation == setting
            ]
            assert lengths == sorted(lengths, reverse=True)

    def test_are_full_but_for_the_last_one_of_a_group(self):
        questions = [Question("w", generation=setting) for setting in SETTINGS[:2] for _ in range(5)]
        assert sorted(len(batch) for batch in batches(questions, 2)) == [1, 1, 2, 2, 2, 2]

    @given(QUESTIONS, st.integers(1, 4))
    def test_are_answered_in_the_order_of_the_questions(self, questions, size):
        counted = []
        answers = in_batches(questions, size, lambda batch: [question.text for question in batch], counted.append)
        assert answers == [question.text for question in questions]
        assert sum(counted) == len(questions)

    def test_with_too_few_answers_are_an_error(self):
        with pytest.raises(ValueError):
            in_batches([Question("a"), Question("b")], 2, lambda batch: ["one answer"])


def test_a_question_without_a_continuation_has_no_ending():
    assert Question("?", continuation=" yes ").ending == "yes"
    with pytest.raises(ValueError, match="document 3 has no continuation"):
        Question("?", name="document 3").ending  # noqa: B018
