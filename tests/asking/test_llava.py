"""The embedded model behind llava_pruned: answers and likelihoods, alone and in batches."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.asking.batch import generation_options
from llava.asking.llava import LlavaModel
from llava.asking.processes import Processes
from llava.asking.questions import Question, in_batches
from llava.conversation import conv_templates
from llava.eval import model_vqa_loader
from llava.lmms.loading import load_llava_pruned
from llava.mm_utils import process_images, tokenizer_image_token
from llava.records import InputError

from .conftest import WRONG_OF_BOTH

CPU = Processes(device="cpu")


@pytest.fixture(scope="module")
def backend(llava_shapes) -> LlavaModel:
    return load_llava_pruned(llava_shapes, CPU, pruner="cdpruner", visual_token_num=16)


def answers(backend, questions, size):
    replies = backend.answers(questions, size, max_new_tokens=8)
    return [(reply.text, reply.prompt_tokens, reply.new_tokens) for reply in replies]


def scores(backend, questions, size):
    return in_batches(questions, size, backend.score)


def loss_by_hand(backend, scene, continuation):
    """Loss and greedy flag of a continuation, token by token, each after the whole prompt and its own beginning."""
    model, tokenizer = backend.model, backend.tokenizer
    system = conv_templates["vicuna_v1"].system
    prompt = tokenizer_image_token(f"{system} USER: <image>\n{scene.text} ASSISTANT:", tokenizer)
    tail = tokenizer(f"ASSISTANT: {continuation}</s>", add_special_tokens=False).input_ids
    tail = tail[len(tokenizer("ASSISTANT:", add_special_tokens=False).input_ids) :]
    image = Image.open(scene.image).convert("RGB")
    pixels = process_images([image], backend.image_processor, model.config)
    query = scene.text.replace("\nAnswer the question using a single word or phrase.", "")
    losses, greedy = [], True
    for token in tail:
        with torch.no_grad():
            logits = model(torch.tensor([prompt]), images=pixels, image_sizes=[image.size], texts=query).logits[0, -1]
        losses.append(-logits.log_softmax(-1)[token].item())
        greedy &= int(logits.argmax()) == token
        prompt = [*prompt, token]
    return sum(losses) / len(losses), greedy


class TestAnswers:
    def test_are_those_of_the_programs_for_llavas_own_question_files(self, backend, scenes, llava_shapes, tmp_path):
        lines = [{"question_id": i, "image": scene.image.name, "text": scene.text} for i, scene in enumerate(scenes)]
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths = {"question_file": tmp_path / "q.jsonl", "answers_file": tmp_path / "a.jsonl"}
        pruning = {"pruner": "cdpruner", "visual_token_num": 16, "temperature": 0, "max_new_tokens": 8}
        options = {"device": "cpu", "num_workers": 0, "conv_mode": "vicuna_v1", "image_folder": scenes[0].image.parent}
        model_vqa_loader.eval_model(SimpleNamespace(model_path=llava_shapes, **paths, **pruning, **options))
        recorded = [json.loads(line) for line in paths["answers_file"].read_text().splitlines()]
        found = answers(backend, [scene.question() for scene in scenes], 1)
        assert [text for text, _, _ in found] == [record["text"] for record in recorded]
        assert len({text for text, _, _ in found}) > 3

    def test_in_batches_equal_single_ones(self, backend, scenes):
        questions = [scene.question() for scene in scenes] + [Question("What is a square?")]
        assert answers(backend, questions, 5) == answers(backend, questions, 1)

    def test_count_the_kept_visual_tokens_into_the_prompt(self, backend, scenes):
        prompt = f"{conv_templates['vicuna_v1'].system} USER: <image>\n{scenes[0].text} ASSISTANT:"
        text_tokens = len(tokenizer_image_token(prompt, backend.tokenizer)) - 1
        before = backend.visual_tokens.copy()
        _, read, written = answers(backend, [scenes[0].question()], 1)[0]
        assert read == text_tokens + 16 and written >= 1
        assert backend.visual_tokens - before == {"images": 1, "kept": 16, "before": 144}

    def test_to_questions_with_several_images_and_none_share_a_batch(self, backend, scenes):
        image = scenes[0].question().load_visuals()[0]
        questions = [
            Question("Is <image> like <image>?", lambda: [image, image]),
            scenes[0].question(),
            Question("Which is larger?", lambda: [image, image, image]),
            Question("What is a square?"),
        ]
        batched = answers(backend, questions, 4)
        assert batched == answers(backend, questions, 1)
        visual = [(2, 0), (1, 0), (3, 0), (0, 0)]
        plain = load_llava_pruned(backend.model.config.name_or_path, CPU)
        for (_, pruned, _), (_, whole, _), (images, _) in zip(
            batched, answers(plain, questions, 4), visual, strict=True
        ):
            assert whole - pruned == images * (144 - 16)

    def test_are_pruned_by_relevance_to_the_bare_question(self, backend, scenes):
        backend.answers([scenes[0].question()], max_new_tokens=8)
        kept = backend.model.last_prune.keep[0]
        image = scenes[0].question().load_visuals()[0]
        pixels = process_images([image], backend.image_processor, backend.model.config)
        ids = torch.tensor([tokenizer_image_token("<image>", backend.tokenizer)])
        choices = []
        for text in (scenes[0].text.split("\n")[0], scenes[0].text):
            backend.model.generate(ids, images=pixels, image_sizes=[image.size], texts=text, max_new_tokens=1)
            choices.append(backend.model.last_prune.keep[0])
        assert torch.equal(kept, choices[0]) and not torch.equal(kept, choices[1])


class TestScores:
    def test_equal_the_losses_worked_out_token_by_token(self, backend, scenes):
        for scene in scenes[:3]:
            for continuation in (scene.answer, scene.wrong):
                ((loss, greedy),) = backend.score([scene.question(continuation=f" {continuation}")])
                expected, expected_greedy = loss_by_hand(backend, scene, continuation)
                assert loss == pytest.approx(expected, abs=1e-4)
                assert greedy == expected_greedy

    def test_call_what_the_model_answers_greedy_and_no_other(self, backend, scenes):
        said = answers(backend, [scene.question() for scene in scenes], 4)
        own = [scene.question(continuation=text) for scene, (text, _, _) in zip(scenes, said, strict=True)]
        assert all(greedy for _, greedy in scores(backend, own, 4))
        wrong = [scene.question(continuation=scene.wrong) for scene in scenes]
        assert not any(greedy for _, greedy in scores(backend, wrong, 4))

    def test_prefer_the_right_answer(self, backend, scenes):
        right = scores(backend, [scene.question(continuation=scene.answer) for scene in scenes], 4)
        wrong = scores(backend, [scene.question(continuation=scene.wrong) for scene in scenes], 4)
        assert all(good < bad for (good, _), (bad, _) in zip(right, wrong, strict=True))

    def test_in_batches_equal_single_ones(self, backend, scenes):
        questions = [Question("What is a square?", continuation="a shape")] + [
            scene.question(continuation=text) for scene in scenes[:5] for text in (scene.answer, scene.wrong)
        ]
        single, batched = scores(backend, questions, 1), scores(backend, questions, 4)
        assert [loss for loss, _ in batched] == pytest.approx([loss for loss, _ in single], abs=1e-4)
        assert [greedy for _, greedy in batched] == [greedy for _, greedy in single]

    @pytest.mark.parametrize("pruner", ["divprune", "fastv"])
    def test_inside_the_language_model_see_the_kept_tokens_alone_behind_the_layer(self, llava_shapes, scenes, pruner):
        backend = load_llava_pruned(llava_shapes, CPU, pruner=pruner, visual_token_num=4, prune_layer=1)
        whole = load_llava_pruned(llava_shapes, CPU)
        questions = [scene.question(continuation=scene.wrong) for scene in scenes[:4]]
        pruned, seen = scores(backend, questions, 4), scores(whole, questions, 4)
        assert backend.visual_tokens == {"images": 4, "kept": 16, "before": 4 * 144}
        assert [loss for loss, _ in pruned] == pytest.approx(
            [loss for loss, _ in scores(backend, questions, 1)], abs=1e-4
        )
        assert all(abs(one - other) > 1e-3 for (one, _), (other, _) in zip(pruned, seen, strict=True))

    def test_without_a_pruner_see_every_token(self, llava_shapes, scenes):
        backend = load_llava_pruned(llava_shapes, CPU)
        scores(backend, [scene.question(continuation=scene.answer) for scene in scenes[:2]], 2)
        assert backend.visual_tokens == {"images": 2, "kept": 288, "before": 288}


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            *WRONG_OF_BOTH,
            ({"prunner": "cdpruner"}, TypeError, "llava_pruned has no argument prunner; its arguments are .*pruner"),
            ({"visual_token_num": 64}, ValueError, "visual_token_num without a pruner"),
            ({"pruner": "best", "visual_token_num": 64}, ValueError, "unknown pruner 'best'"),
            ({"conv_template": "vicuna"}, ValueError, "conv_template 'vicuna' is unknown; valid are .*vicuna_v1"),
            (
                {"pruner": "cdpruner", "visual_token_num": 64, "important_ratio": 0.3},
                TypeError,
                "no option important_ratio",
            ),
        ],
    )
    def test_that_are_unusable_are_named_before_anything_is_loaded(self, options, error, message):
        with pytest.raises(error, match=message):
            load_llava_pruned("/there/is/no/such/checkpoint", CPU, **options)

    def test_of_the_pruner_and_of_the_layout_reach_the_model(self, llava_shapes):
        options = {"pruner": "vispruner", "keep_ratio": 0.25, "important_ratio": 0.3, "budget_scope": "image"}
        model = load_llava_pruned(llava_shapes, CPU, **options, positions="original").model
        assert (model.pruner.keep_ratio, model.pruner.important_ratio) == (0.25, 0.3)
        assert (model.budget_scope, model.positions) == ("image", "original")

    def test_a_video_is_an_error_that_names_the_question(self, backend):
        with pytest.raises(ValueError, match=r"films, document 3 shows film.mp4: .*llava_pruned\) reads images alone"):
            backend.answers([Question("What happens?", lambda: ["film.mp4"], "films, document 3")], 4, max_new_tokens=8)


class TestLosses:
    def test_are_told_with_the_answer_and_added_up(self, backend, scenes):
        image = scenes[0].question().load_visuals()[0]
        questions = [
            scenes[0].question(),
            Question("<image> or <im<image>age>: what?", lambda: [image]),
            Question("Is there a red square? " * 30, lambda: [image]),
        ]
        before = backend.lost.copy()
        replies = backend.answers(questions, 5, max_new_tokens=8)
        assert replies[0].lost == {} and replies[1].lost == {"placeholders": 2}
        assert replies[2].lost["query_cut"] > 0
        (short,) = backend.answers(questions[:1], max_new_tokens=1)
        assert short.lost == {"unfinished": True}
        lost = backend.lost - before
        assert lost["placeholders"] == lost["query_cut"] == 1 and lost["unfinished"] >= 1

    def test_of_a_prompt_over_the_length_limit(self, backend, scenes, monkeypatch):
        question, greedy = scenes[0].question(), generation_options(max_new_tokens=8)
        read = backend.answers([question], max_new_tokens=8)[0].prompt_tokens
        monkeypatch.setattr(backend.model.config, "tokenizer_model_max_length", read - 3)
        assert backend.answer_items([backend.item(question)], greedy)[0].lost["cut"] == 3
        monkeypatch.setattr(backend.model.config, "tokenizer_model_max_length", read + 3)
        before = backend.lost.copy()
        backend.score([scenes[0].question(continuation="a b c d e f g h")])
        assert (backend.lost - before)["cut"] == 1

    def test_of_an_end_are_refused_where_a_person_asks(self, backend, scenes, monkeypatch):
        pair = scenes[0].image, scenes[0].text
        read = backend.answer(*pair, max_new_tokens=1).prompt_tokens
        monkeypatch.setattr(backend.model.config, "tokenizer_model_max_length", read)
        assert "cut" not in backend.answer(*pair, max_new_tokens=1).lost
        monkeypatch.setattr(backend.model.config, "tokenizer_model_max_length", read - 1)
        lost = rf"would lose its end: it has {read} tokens .* reads {read - 1} \(tokenizer_model_max_length\)"
        with pytest.raises(InputError, match=lost):
            backend.answer(*pair, show=lambda piece: pytest.fail("it was asked"), max_new_tokens=1)
        with pytest.raises(InputError, match=f"the question '{scenes[0].text[:20]}.*{lost}"):
            backend.answers([(None, "Why?"), pair], 2, max_new_tokens=1)
        fewer = {"pruner": "divprune", "visual_token_num": 15}
        assert backend.answer(*pair, pruning=fewer, max_new_tokens=1).prompt_tokens == read - 1
