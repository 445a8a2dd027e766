"""Transformers' own models behind vlm_pruned: the embedded model, converted, says what it says in LLaVA's format."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.asking import vlm
from llava.asking.llava import LlavaModel
from llava.asking.processes import Processes
from llava.asking.questions import Question, in_batches
from llava.asking.vlm import VlmModel
from llava.lmms.loading import load_llava_pruned, load_vlm_pruned

from .conftest import WRONG_OF_BOTH

CPU = Processes(device="cpu")
PRUNING = {"pruner": "divprune", "visual_token_num": 16}


@pytest.fixture(scope="module")
def backend(converted, can_prune) -> VlmModel:
    return load_vlm_pruned(converted, CPU, dtype="float32", **PRUNING)


@pytest.fixture(scope="module")
def llava(llava_shapes) -> LlavaModel:
    return load_llava_pruned(llava_shapes, CPU, **PRUNING)


def answers(backend, questions, size):
    replies = backend.answers(questions, size, max_new_tokens=8)
    return [(reply.text, reply.prompt_tokens, reply.new_tokens) for reply in replies]


def assert_close(found, expected):
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


class TestAnswers:
    def test_and_their_token_counts_are_those_of_the_model_in_llavas_format(self, backend, llava, scenes):
        questions = [scene.question() for scene in scenes]
        found = answers(backend, questions, 4)
        assert found == answers(llava, questions, 4)
        assert len({text for text, _, _ in found}) > 3

    def test_in_batches_equal_single_ones(self, backend, scenes):
        image = scenes[0].question().load_visuals()[0]
        questions = [scene.question() for scene in scenes[:5]]
        questions += [Question("What is a square?"), Question("Are these alike?", lambda: [image, image])]
        assert answers(backend, questions, 4) == answers(backend, questions, 1)

    def test_without_a_pruner_are_those_of_plain_llava(self, converted, llava_shapes, scenes):
        questions = [scene.question() for scene in scenes]
        plain = load_vlm_pruned(converted, CPU, dtype="float32")
        assert answers(plain, questions, 4) == answers(load_llava_pruned(llava_shapes, CPU), questions, 4)
        assert plain.visual_tokens == {}

    def test_add_up_the_visual_tokens(self, backend, scenes):
        before = backend.visual_tokens.copy()
        answers(backend, [scene.question() for scene in scenes[:3]] + [Question("What is a square?")], 1)
        assert backend.visual_tokens - before == {"images": 3, "kept": 48, "before": 432}


class TestScores:
    def questions(self, scenes):
        return [scene.question(continuation=text) for scene in scenes[:5] for text in (scene.answer, scene.wrong)]

    def test_are_those_of_the_model_in_llavas_format(self, backend, llava, scenes):
        questions = self.questions(scenes)
        assert_close(in_batches(questions, 4, backend.score), in_batches(questions, 4, llava.score))

    def test_in_batches_equal_single_ones(self, backend, scenes):
        questions = [*self.questions(scenes), Question("What is a square?", continuation="a shape")]
        assert_close(in_batches(questions, 4, backend.score), in_batches(questions, 1, backend.score))

    @pytest.mark.usefixtures("can_prune")
    def test_inside_the_language_model_are_those_of_the_model_in_llavas_format(self, converted, llava_shapes, scenes):
        pruning, questions = {"pruner": "divprune", "visual_token_num": 4, "prune_layer": 1}, self.questions(scenes)
        vlm, llava = (
            load_vlm_pruned(converted, CPU, dtype="float32", **pruning),
            load_llava_pruned(llava_shapes, CPU, **pruning),
        )
        assert_close(in_batches(questions, 4, vlm.score), in_batches(questions, 4, llava.score))
        assert vlm.visual_tokens == llava.visual_tokens


@pytest.mark.usefixtures("can_prune")
def test_the_bare_question_reaches_pruners_that_compare_with_clips_text(converted, scenes):
    clip = Path(__file__).parents[2] / "llava/shapes/checkpoints/clip-shapes"
    options = {"relevance": "clip_text", "text_tower": str(clip), "pruner": "cdpruner", "visual_token_num": 16}
    backend = load_vlm_pruned(converted, CPU, dtype="float32", **options)
    answers(backend, [scenes[0].question()], 1)
    assert backend.record.texts == [scenes[0].text.split("\n")[0]]


def test_a_template_that_begins_a_text_itself_begins_it_once(backend, converted, tmp_path):
    template = tmp_path / "chat.jinja"
    shown = "{% for part in messages[0].content %}{{ part.text if part.type == 'text' else '<image>' }}{% endfor %}"
    template.write_text("{{ bos_token }}" + shown)
    own = load_vlm_pruned(converted, CPU, dtype="float32", chat_template=str(template))
    image = Image.new("RGB", (8, 8))
    _, read, _ = answers(own, [Question("Which?", lambda: [image])], 1)[0]
    assert read == 144 + len(own.tokenizer("Which?").input_ids)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            *WRONG_OF_BOTH,
            ({"prunner": "x"}, TypeError, "vlm_pruned has no argument prunner; its arguments are .*relevance"),
            ({"keep_ratio": 0.1}, ValueError, "keep_ratio without a pruner"),
            ({"relevance": "llm_text"}, ValueError, "relevance without a pruner"),
            ({"pruner": "best", "keep_ratio": 0.1}, ValueError, "unknown pruner 'best'"),
            ({"max_frames_num": 0}, ValueError, "max_frames_num must be a whole number"),
        ],
    )
    def test_that_are_unusable_are_named_before_anything_is_loaded(self, options, error, message):
        with pytest.raises(error, match=message):
            load_vlm_pruned("/there/is/no/such/checkpoint", CPU, **options)

    @pytest.mark.usefixtures("can_prune")
    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"prune_layer": 99}, ValueError, "prune_layer 99: .* has [0-9]+ decoder layers"),
            ({"relevance": "clip_text", "text_tower": "./no/clip"}, FileNotFoundError, "'./no/clip': no such folder"),
        ],
    )
    def test_that_the_config_rules_out_are_named_before_the_weights_are_read(
        self, converted, monkeypatch, wrong, error, message
    ):
        monkeypatch.setattr(vlm.AutoModelForImageTextToText, "from_pretrained", None)
        with pytest.raises(error, match=message):
            load_vlm_pruned(converted, CPU, **PRUNING | wrong)

    def test_a_folder_that_is_not_there_is_named(self):
        with pytest.raises(FileNotFoundError, match="'./checkpoints/nothing': no such folder"):
            load_vlm_pruned("./checkpoints/nothing", CPU)

    def test_a_processor_without_a_chat_template_asks_for_one(self, converted, tmp_path):
        for file in Path(converted).iterdir():
            if file.name != "chat_template.jinja":
                (tmp_path / file.name).symlink_to(file)
        with pytest.raises(ValueError, match="has no chat template: give one, chat_template=FILE"):
            load_vlm_pruned(str(tmp_path), CPU)

    def test_a_transformers_too_old_to_prune_is_named_before_anything_is_loaded(self, monkeypatch):
        monkeypatch.setattr("llava.compat.PRUNES_FROM", "99")
        with pytest.raises(ImportError, match="transformers>=99"):
            load_vlm_pruned("/there/is/no/such/checkpoint", CPU, **PRUNING)

    @pytest.mark.usefixtures("can_prune")
    def test_reach_the_pruner_and_the_model(self, converted):
        options = {"pruner": "vispruner", "keep_ratio": 0.25, "important_ratio": 0.3, "budget_scope": "image"}
        backend = load_vlm_pruned(converted, CPU, dtype="bfloat16", attn_implementation="eager", **options)
        settings = backend.record.options
        assert (settings.pruner.keep_ratio, settings.pruner.important_ratio) == (0.25, 0.3)
        assert settings.budget_scope == "image"
        assert backend.model.dtype == torch.bfloat16 and backend.model.config._attn_implementation == "eager"


def test_what_is_lost_is_told_with_the_answer_and_added_up(backend, scenes, monkeypatch):
    image = scenes[0].question().load_visuals()[0]
    monkeypatch.setattr(backend.processor, "video_token", "<clip>", raising=False)
    monkeypatch.setattr(backend.processor, "audio_token", "<sound>", raising=False)
    text = scenes[0].text
    texts = [text, f"<image><image><image> {text}", f"<im<clip>age>{text}", f"<so<sound>und>{text}"]
    before = backend.lost.copy()
    replies = backend.answers([Question(text, lambda: [image]) for text in texts], 4, max_new_tokens=8)
    assert [reply.lost for reply in replies] == [{}, {"placeholders": 2}, {"placeholders": 2}, {"placeholders": 2}]
    assert len({reply.text for reply in replies}) == 1
    (short,) = backend.answers([Question(texts[0], lambda: [image])], max_new_tokens=1)
    assert short.lost == {"unfinished": True}
    assert backend.lost - before == {"placeholders": 3, "unfinished": 1}


def test_a_question_of_bytes_that_are_no_text_is_answered(backend, scenes):
    image = scenes[0].question().load_visuals()[0]
    texts = [f"{scenes[0].text}\udcf6", f"{scenes[0].text}\ufffd"]
    replies = backend.answers([Question(text, lambda: [image]) for text in texts], 4, max_new_tokens=8)
    assert replies[0].text == replies[1].text
