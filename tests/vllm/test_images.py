"""How many tokens an image has is known from its sizes: as many as the image side hands on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig

from llava.vllm import ENTRY
from llava.vllm.images import Sizes
from llava.vllm.options import served

VISION = CLIPVisionConfig(hidden_size=32, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=14)
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
SIDES = st.integers(1, 400)


def sizes(kind, **pruner) -> Sizes:
    text = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    entries = {"image_grid_pinpoints": PINPOINTS} if kind is LlavaNextConfig else {}
    config = kind(vision_config=VISION, text_config=text, **entries)
    setattr(config, ENTRY, pruner)
    return Sizes(served(config), VISION, kind is LlavaNextConfig)


@given(SIDES, SIDES)
def test_one_tile_has_the_budget(width, height):
    assert sizes(LlavaConfig, pruner="divprune", visual_token_num=3).kept((width, height)) == 3
    assert sizes(LlavaConfig, pruner="divprune", visual_token_num=9).kept((width, height)) == 4
    assert sizes(LlavaConfig, pruner="vispruner", keep_ratio=0.5).tiles((width, height)) == 1


@settings(max_examples=40)
@given(SIDES, SIDES, st.sampled_from(["divprune", "vispruner", "uniform"]), st.sampled_from([None, "tile", "image"]))
def test_anyres_has_the_budget_of_its_tiles_and_the_newlines_nobody_judges(width, height, pruner, scope):
    from llava.selecting.choose import choose

    asked = {"pruner": pruner, "visual_token_num": 2, **({"budget_scope": scope} if scope else {})}
    known = sizes(LlavaNextConfig, **asked)
    visual = known.visual((width, height))
    cues = {name: torch.rand(visual.length, 6) for name in ("features", "embeds")}
    cues["cls_attention"] = torch.rand(visual.length)
    (kept,) = choose(known.served.options, [type(visual)(visual.length, visual.parts, cues, visual.newline)]).kept
    assert known.kept((width, height)) == len(kept)


@pytest.mark.parametrize(("size", "tiles"), [((28, 28), 3), ((56, 56), 5), ((300, 50), 4)])
def test_tiles_of_a_picture(size, tiles):
    assert sizes(LlavaNextConfig, pruner="divprune", visual_token_num=2).tiles(size) == tiles
