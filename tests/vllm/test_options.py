"""What ``visual_pruner`` may say of which model; every refusal begins with its name and says what is valid."""

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig, SiglipVisionConfig

from llava.pruners import CDPruner, VisPruner
from llava.vllm import ENTRY
from llava.vllm import options as served_options
from llava.vllm.options import served
from llava.vllm.registration import check, is_tested

OPENAI = {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 336, "patch_size": 14}
OPENAI |= {"num_attention_heads": 16, "intermediate_size": 4096}
PRUNED = {"pruner": "cdpruner", "visual_token_num": 64}
LLAVA = "LlavaForConditionalGeneration"


def config(pruner=None, vision=None, kind=LlavaConfig, **entries):
    text = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    made = kind(vision_config=vision or CLIPVisionConfig(**OPENAI), text_config=text, **entries)
    if pruner is not None:
        setattr(made, ENTRY, pruner)
    return made


def test_without_it_nothing_is_served():
    assert served(config()) is None


def test_a_pruner_of_text_reads_openais_clip_where_none_is_recorded():
    found = served(config(PRUNED))
    assert found.options.pruner == CDPruner(visual_token_num=64)
    assert found.text_tower == "openai/clip-vit-large-patch14-336"


def test_another_pruner_needs_no_clip():
    small = CLIPVisionConfig(hidden_size=32, num_attention_heads=2, intermediate_size=32, num_hidden_layers=2)
    found = served(config({"pruner": "vispruner", "keep_ratio": 0.1, "important_ratio": 0.25}, small))
    assert found.options.pruner == VisPruner(keep_ratio=0.1, important_ratio=0.25) and found.text_tower is None
    with pytest.raises(ValueError, match="visual_pruner: no CLIP for the text side.*text_tower"):
        served(config(PRUNED, small))


def test_words_need_no_clip():
    found = served(config({"pruner": "mmtok", "visual_token_num": 64}))
    assert found.text_tower is None and "text_tokens" in found.options.needs


def test_the_recorded_clip_is_read():
    recorded = {"config": {"mm_vision_tower": "someone/clip-of-their-own"}}
    assert served(config(PRUNED, llava_format=recorded)).text_tower == "someone/clip-of-their-own"
    chosen = PRUNED | {"text_tower": "openai/clip-another"}
    assert served(config(chosen, llava_format=recorded)).text_tower == "openai/clip-another"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cdpruner", "must be like"),
        ({}, "names no pruner"),
        ({"pruner": "none"}, "names no pruner"),
        ({"pruner": "cdprune", "visual_token_num": 64}, "unknown pruner 'cdprune'; the known ones are none, cdpruner"),
        ({"pruner": "cdpruner"}, "needs a budget"),
        (PRUNED | {"visual_token_num": "64"}, "visual_token_num must be an integer"),
        (PRUNED | {"important_ratio": 0.5}, "cdpruner has no option important_ratio; its options are: theta"),
        (PRUNED | {"relevance": "llm_text"}, "relevance is 'clip_text' in vLLM, not 'llm_text'"),
        (PRUNED | {"positions": "original"}, "positions is 'compact' in vLLM"),
        (PRUNED | {"prune_layer": 2}, "prune_layer is 0 in vLLM"),
        (PRUNED | {"attention": "received"}, "attention is 'cls' in vLLM"),
        (PRUNED | {"budget": "spectral"}, "budget is 'fixed' in vLLM"),
        (PRUNED | {"budget_split": "importance"}, "budget_split is 'even' in vLLM"),
        (PRUNED | {"erank_ref": 70.0}, "erank_ref is for budget 'spectral'"),
        (PRUNED | {"budget_scope": "frame"}, "budget_scope 'frame'"),
        ({"pruner": "fastv", "visual_token_num": 64}, "fastv cannot be served: it chooses inside the language model"),
        ({"pruner": "divprune", "visual_token_num": 64, "text_tower": "x/y"}, "for pruners that read the question"),
        ({"pruner": "mmtok", "visual_token_num": 64, "text_tower": "x/y"}, "that read the question with CLIP, not for"),
        ({"pruner": "hiprune", "visual_token_num": 64, "object_layer": 25}, "block 25: .* has blocks 1 to 24"),
        (PRUNED | {"text_tower": "./nowhere"}, "no CLIP for the text side.*nowhere"),
    ],
)
def test_what_cannot_be_served_is_refused(given, words):
    with pytest.raises(ValueError, match=f"(?s)^visual_pruner: .*{words}"):
        served(config(given))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"vision": SiglipVisionConfig()}, "vision_config.model_type is 'siglip_vision_model'; valid: clip_vision"),
        ({"vision_feature_layer": [-2, -5]}, "type of vision_feature_layer is 'list'; valid: int"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'; valid: default"),
    ],
)
def test_models_of_other_kinds_are_refused(entries, words):
    with pytest.raises(ValueError, match=words):
        served(config(PRUNED, **entries))


def test_a_class_that_would_ignore_it_is_refused():
    check(config(), "Qwen2_5_VLForConditionalGeneration")
    with pytest.raises(ValueError, match=f"Qwen2_5_VLForConditionalGeneration cannot be pruned in vLLM; {LLAVA}"):
        check(config(PRUNED), "Qwen2_5_VLForConditionalGeneration")


def test_only_tested_versions_prune(monkeypatch):
    assert is_tested("0.32.0") and is_tested("0.32.3+cpu") and is_tested("0.32.1.post2")
    assert not any(map(is_tested, ("0.31.9", "0.33.0", "1.0", "of unknown version")))
    for version, refused in (("0.32.1", False), ("0.33.0", True)):
        monkeypatch.setattr("llava.vllm.registration.installed", lambda: version)  # noqa: B023
        check(config(kind=LlavaNextConfig), LLAVA)
        if refused:
            with pytest.raises(ValueError, match="visual_pruner: pruning was tested with vLLM 0.32.0.*this is 0.33.0"):
                check(config(PRUNED), LLAVA)
        else:
            check(config(PRUNED), LLAVA)


def test_what_has_one_value_says_why():
    assert all(len(entry) == 2 and entry[1] for entry in served_options.ONE_WAY.values())
