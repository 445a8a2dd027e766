"""LLaVA-1.5 in Transformers' format beside our own: the same CLIP gives the same relevance."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.pruning import prune

CLIP = str(Path(__file__).parents[2] / "e2e" / "checkpoints" / "clip")
QUESTIONS = ["What color is the large shape?", "How many shapes are there?"]
LONG = "Describe " + "the red circle and the blue square " * 20


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig.from_pretrained(CLIP),
        text_config=LlamaConfig(**sizes, vocab_size=96, pad_token_id=0),
        image_token_index=90,
    )
    model = LlavaForConditionalGeneration(config).eval()
    clip = CLIPVisionModel.from_pretrained(CLIP, dtype=torch.float32)
    model.model.vision_tower.load_state_dict(clip.state_dict())
    return model


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 336, 336, generator=torch.Generator().manual_seed(0))


def own_cues(pixels, texts, chunking="release"):
    args = SimpleNamespace(mm_vision_select_layer=-2, mm_vision_select_feature="patch")
    tower = CLIPVisionTower(CLIP, args)
    tower.load_text_tower(chunking)
    return tower.cues(pixels, frozenset({"relevance", "cls_attention"}), texts)[1]


def inputs(pixels):
    return {"input_ids": torch.tensor([[1, *[90] * 576, 5], [1, *[90] * 576, 6]]), "pixel_values": pixels}


@pytest.mark.parametrize("texts, chunking", [(QUESTIONS, "release"), (QUESTIONS[0], "release"), (LONG, "bos_eos")])
def test_relevance_by_the_text_tower_is_that_of_llavas_own_classes(model, pixels, spy, texts, chunking):
    with prune(
        model, spy, relevance="clip_text", text_tower=CLIP, texts=texts, text_chunking=chunking
    ), torch.no_grad():  # fmt: skip
        model(**inputs(pixels))
    (told,) = spy.told
    expected = own_cues(pixels, [texts] * 2 if isinstance(texts, str) else texts, chunking)
    torch.testing.assert_close(told.relevance, expected["relevance"], atol=1e-6, rtol=0)
    torch.testing.assert_close(told.cls_attention, expected["cls_attention"], atol=1e-6, rtol=0)


def test_the_question_decides_what_cdpruner_keeps(model, pixels):
    kept = []
    for texts in (QUESTIONS, QUESTIONS[::-1], QUESTIONS):
        with prune(
            model, "cdpruner", visual_token_num=32, relevance="clip_text", text_tower=CLIP, texts=texts
        ) as record, torch.no_grad():  # fmt: skip
            model(**inputs(pixels))
        kept.append([positions.tolist() for positions in record.keep])
    assert kept[0] == kept[2]
    assert kept[0] != kept[1]


@pytest.mark.parametrize("texts, count", [(None, 0), (QUESTIONS[:1], 1)])
def test_every_prompt_needs_its_question(model, pixels, texts, count):
    with prune(
        model, "cdpruner", visual_token_num=8, relevance="clip_text", text_tower=CLIP, texts=texts
    ), pytest.raises(ValueError, match=f"`texts` has {count} entries for 2 prompts"):  # fmt: skip
        model(**inputs(pixels))
