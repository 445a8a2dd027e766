import numpy as np
import pytest
from PIL import Image

from llava.lmms.requests import cut, decoding, flat, ignored, question_of, stops


class TestQuestionOf:
    documents = {"task": {"test": [{"image": "first", "answer": "no"}, {"image": "second", "answer": "yes"}]}}

    @staticmethod
    def rule(document):
        return [document["image"]]

    def test_a_generation_reads_its_own_document_and_only_when_the_batch_is_due(self):
        read = []
        args = ("Why?", {"max_new_tokens": 3}, lambda document: read.append(document) or ["x"], 1, "task", "test")
        question = question_of(args, self.documents)
        assert read == []
        assert question.load_visuals() == ["x"] and read == [self.documents["task"]["test"][1]]
        assert (question.text, question.generation, question.continuation) == ("Why?", {"max_new_tokens": 3}, None)
        assert "task" in question.name and "1" in question.name

    def test_a_likelihood_has_its_continuation_as_text_or_by_the_rule_of_the_task(self):
        given_text = question_of(("Why?", " yes", self.rule, 0, "task", "test"), self.documents)
        by_rule = question_of(("Why?", lambda doc: doc["answer"], self.rule, 1, "task", "test"), self.documents)
        assert given_text.continuation == " yes" and given_text.load_visuals() == ["first"]
        assert by_rule.continuation == "yes" and by_rule.generation == {}

    def test_a_likelihood_without_a_document_shows_nothing(self):
        question = question_of(("", "yes"), {})
        assert question.load_visuals() == [] and question.continuation == "yes"


class TestVisuals:
    image = Image.new("RGB", (2, 2))

    @pytest.mark.parametrize("none", [None, [], [None]])
    def test_of_a_text_question_are_none(self, none):
        assert flat(none) == []

    def test_lose_the_lists_around_several_images(self):
        assert flat([[self.image, self.image], self.image]) == [self.image] * 3

    def test_keep_the_frames_of_a_video_together(self):
        frames = np.zeros((3, 2, 2, 3))
        assert flat(["film.mp4", frames])[0] == "film.mp4"
        assert flat([frames])[0] is frames


class TestDecoding:
    def test_is_greedy_unless_there_is_a_temperature(self):
        for generation in (
            {},
            {"temperature": 0, "top_p": 0.9, "top_k": 5},
            {"do_sample": True},
            {"temperature": None},
        ):
            options = decoding(generation)
            assert options["do_sample"] is False
            assert not {"temperature", "top_p", "top_k"} & set(options)

    def test_samples_at_a_temperature_unless_the_task_says_not_to(self):
        options = decoding({"temperature": 0.7, "top_p": 0.9})
        assert (options["do_sample"], options["temperature"], options["top_p"]) == (True, 0.7, 0.9)
        assert decoding({"temperature": 0.7, "do_sample": False})["do_sample"] is False

    def test_passes_length_and_beams_on(self):
        options = decoding({"max_new_tokens": 5, "num_beams": 3, "until": ["x"]})
        assert (options["max_new_tokens"], options["num_beams"]) == (5, 3)
        assert "until" not in options

    def test_names_the_settings_that_nothing_reads(self):
        generation = {"image_aspect_ratio": "original", "until": [], "do_sample": False, "max_new_tokens": 5}
        assert ignored(generation) == ["image_aspect_ratio"]

    @pytest.mark.parametrize(
        ("wrong", "name"),
        [
            ({"temperature": float("nan")}, "temperature"),
            ({"temperature": -1}, "temperature"),
            ({"temperature": 0.7, "top_p": 7}, "top_p"),
            ({"num_beams": 0}, "num_beams"),
            ({"max_new_tokens": True}, "max_new_tokens"),
            ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ],
    )
    def test_a_setting_out_of_its_bounds_is_named(self, wrong, name):
        with pytest.raises(ValueError, match=f"{name}: .* is not a"):
            decoding(wrong)

    def test_settings_that_greedy_decoding_does_not_read_may_be_any(self):
        assert decoding({"temperature": 0, "top_p": 0, "top_k": -1})["do_sample"] is False


class TestStops:
    @pytest.mark.parametrize(
        ("until", "expected"),
        [(None, []), ("###", ["###"]), (["\n\n"], []), (["\n\n", "\n"], ["\n"]), ([""], [])],
    )
    def test_are_those_that_the_task_names(self, until, expected):
        assert stops({"until": until}) == expected

    def test_end_an_answer_at_the_first_of_them(self):
        assert cut("one. two; three", [";", "."]) == "one"
        assert cut("one", [";"]) == "one"
        assert cut("one. two", []) == "one. two"
