"""``prune`` and ``unprune``: what they accept, and what they say of what they do not."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PixtralVisionConfig,
)

from llava.pruners import PRUNERS
from llava.pruning import FAMILIES, prune, unprune


def kept(tiny):
    tiny.model(**tiny.inputs)
    return tiny.model._pruning.visual_tokens


def test_a_pruner_lasts_until_it_is_taken_away(tiny_llava):
    record = prune(tiny_llava.model, "uniform", visual_token_num=3)
    assert kept(tiny_llava) == [3, 3, 3]
    unprune(tiny_llava.model)
    tiny_llava.model(**tiny_llava.inputs)
    assert record.visual_tokens == [3, 3, 3]
    assert prune(tiny_llava.model, PRUNERS["uniform"](visual_token_num=5)) is not record
    assert kept(tiny_llava) == [5, 5, 5]


def test_a_pruned_model_is_not_pruned_twice(tiny_llava):
    with prune(tiny_llava.model, "uniform", visual_token_num=3):
        with pytest.raises(ValueError, match="pruned already"):
            prune(tiny_llava.model, "random", visual_token_num=3)
        assert kept(tiny_llava) == [3, 3, 3]


def test_an_error_within_the_block_ends_the_pruning(tiny_llava):
    with pytest.raises(KeyError), prune(tiny_llava.model, "uniform", visual_token_num=3):
        raise KeyError
    assert not hasattr(tiny_llava.model, "_pruning")


def test_another_instance_is_not_touched(tiny_llava):
    other = type(tiny_llava.model)(tiny_llava.model.config).eval()
    other.load_state_dict(tiny_llava.model.state_dict())
    expected = other(**tiny_llava.inputs).logits
    with prune(tiny_llava.model, "uniform", visual_token_num=3):
        assert torch.equal(other(**tiny_llava.inputs).logits, expected)


def test_a_transformers_too_old_is_told_which_is_needed(tiny_llava, monkeypatch):
    monkeypatch.setattr("llava.compat.PRUNES_FROM", "99")
    with pytest.raises(ImportError, match="transformers>=99"):
        prune(tiny_llava.model, "uniform", visual_token_num=3)


def test_models_of_other_classes_are_told_which_are_supported():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    with pytest.raises(TypeError, match="LlamaForCausalLM") as error:
        prune(model, "uniform", visual_token_num=3)
    assert all(name in str(error.value) for name in FAMILIES)


def test_a_supported_class_with_another_encoder_is_refused(tiny_llava):
    """Pixtral's images of any size come through LLaVA's class, and its blocks are not where CLIP has them."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlavaConfig(vision_config=PixtralVisionConfig(**sizes), text_config=tiny_llava.model.config.text_config)
    with pytest.raises(TypeError, match="whose encoder is a PixtralVisionModel"):
        prune(LlavaForConditionalGeneration(config), "uniform", visual_token_num=3)


def test_subclasses_of_a_supported_class_are_supported(tiny_llava):
    class Mine(type(tiny_llava.model)):
        pass

    model = Mine(tiny_llava.model.config)
    with prune(model, "uniform", visual_token_num=3) as record:
        model(**tiny_llava.inputs)
    assert record.visual_tokens == [3, 3, 3]


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"pruner": "none"}, "needs a pruner"),
        ({"pruner": "cdprune", "visual_token_num": 3}, "the known ones are"),
        ({"pruner": "cdpruner"}, "needs a budget"),
        ({"pruner": "cdpruner", "visual_token_num": 3, "positions": "absolute"}, "compact, original"),
        ({"pruner": "cdpruner", "visual_token_num": 3, "relevance": "siglip"}, "llm_text, clip_text"),
        ({"pruner": "cdpruner", "visual_token_num": 3, "relevance": "clip_text"}, "need one another"),
        ({"pruner": "cdpruner", "visual_token_num": 3, "text_tower": "clip"}, "need one another"),
        ({"pruner": "cdpruner", "visual_token_num": 3, "budget_scope": "row"}, "tile, image"),
        ({"pruner": "vispruner", "visual_token_num": 3, "attention": "sent"}, "cls, received"),
        ({"pruner": "divprune", "visual_token_num": 3, "prune_layer": 3}, "0 or from 1 to 2"),
        ({"pruner": "divprune", "visual_token_num": 3, "prune_layer": True}, "0 or from 1 to 2"),
        ({"pruner": "divprune", "visual_token_num": 3, "prune_layer": 1, "positions": "compact"}, "one of original"),
        ({"pruner": "trim", "visual_token_num": 3, "prune_layer": 1}, "merges tokens"),
        ({"pruner": "fastv", "visual_token_num": 3}, "needs prune_layer of 1 or more"),
    ],
)
def test_wrong_values_name_the_right_ones(tiny_llava, kwargs, message):
    with pytest.raises(ValueError, match=message):
        prune(tiny_llava.model, **kwargs)
    assert not hasattr(tiny_llava.model, "_pruning")


def test_options_of_another_pruner_are_refused(tiny_llava):
    with pytest.raises(TypeError, match="important_ratio"):
        prune(tiny_llava.model, "cdpruner", visual_token_num=3, important_ratio=0.5)
