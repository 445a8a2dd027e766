"""A checkpoint that an engine answers with, on a stand-in for vLLM: what is asked, what is counted, what is refused."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig

from llava.shapes import checkpoint_path
from llava.vllm import ENTRY
from llava.vllm.answering import EngineModel

PLACEHOLDER, WORDS = 999, 12  # the words of the stand-in's prompts beside the placeholders


class Engine:
    """Says "Yes", and replaces the placeholder of an image by as many as a pruned model keeps."""

    def __init__(self, config, tokenizer, kept):
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(hf_config=config))
        self.tokenizer, self.kept, self.prompts = tokenizer, kept, []

    def get_tokenizer(self):
        return self.tokenizer

    def generate(self, prompts, sampling, use_tqdm):
        self.prompts += prompts
        ids = self.tokenizer("Yes", add_special_tokens=False).input_ids
        read = [PLACEHOLDER] * self.kept + [1] * WORDS
        return [SimpleNamespace(prompt_token_ids=read, outputs=[SimpleNamespace(token_ids=ids)]) for _ in prompts]


@pytest.fixture
def engine(monkeypatch):
    """A function that starts a stand-in with an entry ``visual_pruner``, or without one."""
    loader = ModuleType("vllm.model_executor.model_loader")
    loader.get_model_architecture = lambda config: (type("Loaded", (), {"__module__": "llava.vllm.models"}), "")
    vllm = ModuleType("vllm")
    vllm.SamplingParams = SimpleNamespace
    for module in (vllm, ModuleType("vllm.model_executor"), loader):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def start(**entry):
        vision = CLIPVisionConfig(
            hidden_size=32, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=14
        )
        text = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
        config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=PLACEHOLDER)
        if entry:
            setattr(config, ENTRY, entry)
        kept = entry.get("visual_token_num", 4)
        return EngineModel("tiny", Engine(config, AutoTokenizer.from_pretrained(checkpoint_path()), kept), "vicuna_v1")

    return start


PICTURE = Image.new("RGB", (28, 28))


def test_a_picture_is_asked_about_and_its_tokens_are_counted(engine):
    model = engine(pruner="divprune", visual_token_num=3)
    answer = model.answer(PICTURE, "Is there a star?")
    assert str(answer) == "Yes"
    assert (answer.visual_tokens, answer.tokens_before, answer.prompt_tokens) == (3, 4, 3 + WORDS)
    (prompt,) = model.llm.prompts
    assert prompt["prompt_token_ids"].count(PLACEHOLDER) == 1 and len(prompt["multi_modal_data"]["image"]) == 1
    assert prompt["mm_processor_kwargs"] == {"question": "Is there a star?"}


def test_pairs_are_answered_in_their_order(engine):
    model = engine()
    assert [str(answer) for answer in model.answers([(PICTURE, "Which?"), (PICTURE, "How many?")], 2)] == ["Yes", "Yes"]
    assert "mm_processor_kwargs" not in model.llm.prompts[0]


def test_it_says_how_it_prunes(engine):
    options = engine(pruner="divprune", visual_token_num=3).options
    assert options.chooser.visual_token_num == 3 and engine().options.pruner is None


def test_it_prunes_as_it_was_started(engine):
    model = engine(pruner="divprune", visual_token_num=3)
    with pytest.raises(ValueError, match="prunes as it was started"):
        model.prune("cdpruner", visual_token_num=3)
    for pruning in (None, {"pruner": "divprune", "visual_token_num": 2}):
        with pytest.raises(ValueError, match="`pruning` cannot be brought to one call"):
            model.answer(PICTURE, "Is there a star?", pruning=pruning)
    assert not model.llm.prompts


def test_it_holds_no_conversation(engine):
    with pytest.raises(ValueError, match="answers single questions"):
        engine().chat(PICTURE)
