"""What every loaded model does, in both formats: pairs, a pruner for one call, answers that know what was kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import llava
from llava.asking.questions import Answer, Question
from llava.selecting.options import PruningOptions

QUESTION = "What color is the shape?"
DIVPRUNE = {"pruner": "divprune", "visual_token_num": 20}
UNIFORM = {"pruner": "uniform", "keep_ratio": 0.25}


@pytest.fixture(scope="module", params=["native", "hosted"])
def model(request, converted):
    if request.param == "hosted":
        request.getfixturevalue("can_prune")
    return llava.load(converted if request.param == "hosted" else None, device="cpu")


@pytest.fixture(autouse=True)
def unpruned(request):
    yield
    if "model" in request.fixturenames:
        request.getfixturevalue("model").prune(None)


def counted(answer):
    return answer.visual_tokens, answer.tokens_before


class TestAnswer:
    def test_is_its_text_and_says_what_was_read(self):
        answer = Answer("It is red.", 36, 0, 144, 1, 58, 4, 0.309, {"cut": 3}, keep=(torch.arange(36),))
        assert f"{answer}" == answer.text == "It is red." and answer.dropped == 108
        said = "<Answer 'It is red.': 36 of 144 visual tokens, 58 tokens read, 4 written, 0.31 s, cut: 3>"
        assert repr(answer) == said

    def test_of_no_image_says_nothing_of_visual_tokens(self):
        assert repr(Answer("No.", prompt_tokens=9, new_tokens=2)) == "<Answer 'No.': 9 tokens read, 2 written, 0.00 s>"

    def test_is_equal_to_one_that_took_longer(self):
        assert Answer("a", keep=(torch.arange(3),), seconds=1.0) == Answer("a", keep=(torch.arange(2),), seconds=2.0)

    def test_knows_what_was_kept_and_no_later_call_changes_it(self, model, scenes):
        answer = model.answer(scenes[0].image, scenes[0].text, pruning=DIVPRUNE, max_new_tokens=2)
        kept = [positions.tolist() for positions in answer.keep]
        assert [len(positions) for positions in kept] == [20] and kept[0] == sorted(kept[0])
        model.answer(scenes[1].image, scenes[1].text, pruning=UNIFORM, max_new_tokens=2)
        answer.keep[0][0] += 0  # no tensor of inference alone
        assert [positions.tolist() for positions in answer.keep] == kept
        assert model.answer(scenes[0].image, QUESTION, max_new_tokens=1).keep is None


class TestAnswers:
    def test_of_pairs_are_those_of_single_questions_in_their_order(self, model, scenes):
        pairs = [(scene.image, scene.text) for scene in scenes[:4]] + [(None, "What is a square?")]
        pairs.append(([scenes[0].image, scenes[1].image], "Are these alike?"))
        batched = model.answers(pairs, 3, pruning=DIVPRUNE, max_new_tokens=8)
        alone = [model.answer(*pair, pruning=DIVPRUNE, max_new_tokens=8) for pair in pairs]
        assert batched == alone
        sizes = [[len(positions) for positions in answer.keep or ()] for answer in batched]
        assert sizes == [[20], [20], [20], [20], [], [20, 20]]

    def test_take_questions_and_pairs_side_by_side(self, model, scenes):
        image = scenes[0].image
        found = model.answers([(image, QUESTION), scenes[0].question()], 2, max_new_tokens=2)
        assert [counted(answer) for answer in found] == [(144, 144)] * 2

    @pytest.mark.parametrize("wrong", ["What?", ("a.png",), ("a.png", 3), 7])
    def test_of_what_is_no_question_are_an_error_before_anything_is_read(self, model, wrong):
        with pytest.raises(TypeError, match=r"questions\[1\] must be a pair \(image, question\) or a Question"):
            model.answers([Question("What?"), wrong])

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, "auto"])
    def test_of_no_batch_are_an_error(self, model, wrong):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, not "):
            model.answers([Question("What?")], wrong)

    @pytest.mark.parametrize("wrong", [None, 7, ["What?"]])
    def test_to_what_is_no_text_are_an_error(self, model, wrong):
        for ask in (lambda: model.answer(None, wrong), lambda: model.chat().ask(wrong)):
            with pytest.raises(TypeError, match="question must be text, not "):
                ask()


class TestPruning:
    def test_of_one_call_is_by_mapping_options_or_none(self, model, scenes):
        image = scenes[0].image
        asked = PruningOptions.of(model.host, **DIVPRUNE)
        model.prune("uniform", visual_token_num=10)
        kept = [
            counted(model.answer(image, QUESTION, pruning=pruning, max_new_tokens=1))
            for pruning in (DIVPRUNE, asked, None, {"pruner": "none"})
        ]
        assert kept == [(20, 144), (20, 144), (144, 144), (144, 144)]
        assert counted(model.answer(image, QUESTION, max_new_tokens=1)) == (10, 144)
        assert model.options.pruner.visual_token_num == 10

    def test_of_a_call_gives_the_answers_of_a_model_that_is_set_so(self, model, scenes):
        pairs = [(scene.image, scene.text) for scene in scenes[:4]]
        brought = model.answers(pairs, 2, pruning=DIVPRUNE, max_new_tokens=8)
        model.prune(**DIVPRUNE)
        assert model.answers(pairs, 2, max_new_tokens=8) == brought

    def test_set_to_none_is_a_model_that_was_never_pruned(self, model, scenes):
        before = model.answer(scenes[0].image, QUESTION, max_new_tokens=8)
        model.prune("divprune", keep_ratio=0.1)
        assert counted(model.answer(scenes[0].image, QUESTION, max_new_tokens=1)) == (14, 144)
        model.prune(None)
        assert model.options == PruningOptions()
        assert repr(model).endswith(f" {model.name}, pruner none>")
        assert model.answer(scenes[0].image, QUESTION, max_new_tokens=8) == before

    def test_set_to_none_with_a_budget_is_an_error(self, model):
        with pytest.raises(ValueError, match="none keeps every token; it cannot be combined with visual_token_num"):
            model.prune(None, visual_token_num=9)
        with pytest.raises(ValueError, match="none keeps every token; it cannot be combined with visual_token_num"):
            model.chat().prune(None, visual_token_num=9)

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"pruner": "best", "visual_token_num": 3}, ValueError, "unknown pruner 'best'"),
            ({"pruner": "none", "visual_token_num": 3}, ValueError, "none keeps every token"),
            ({"pruner": "divprune", "visual_token_number": 3}, TypeError, "visual_token_number"),
            ({"pruner": "fastv", "visual_token_num": 3, "prune_layer": 99}, ValueError, "layer"),
        ],
    )
    def test_that_is_wrong_leaves_the_model_as_it_was(self, model, scenes, options, kind, message):
        model.prune(**DIVPRUNE)
        with pytest.raises(kind, match=message):
            model.prune(**options)
        with pytest.raises(kind, match=message):
            model.answer(scenes[0].image, QUESTION, pruning=options)
        assert counted(model.answer(scenes[0].image, QUESTION, max_new_tokens=1)) == (20, 144)

    def test_of_another_type_is_an_error(self, model):
        with pytest.raises(TypeError, match="pruning must be PruningOptions, None or a mapping .*, not str"):
            model.answer(None, QUESTION, pruning="divprune")

    def test_of_two_threads_is_each_ones_own(self, model, scenes, switching):
        asked = [DIVPRUNE, UNIFORM, None, {"pruner": "cls_topk", "visual_token_num": 8}]
        pairs = [(scene.image, scene.text) for scene in scenes[:2]]
        alone = [model.answers(pairs, pruning=pruning, max_new_tokens=6) for pruning in asked]
        with ThreadPoolExecutor(len(asked)) as pool:
            found = [pool.submit(model.answers, pairs, pruning=each, max_new_tokens=6) for each in asked * 2]
            assert [each.result() for each in found] == alone * 2
        assert len({answers[0].visual_tokens for answers in alone}) == 4
