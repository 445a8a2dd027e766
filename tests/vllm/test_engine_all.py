"""Every pruner, both kinds of LLaVA and the engine's ways of batching: slower than ``test_engine``, as exact."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from llava.model import LlavaMistralConfig
from llava.pruners import PRUNERS
from llava.pruners.cues import INSIDE_CUES, QUESTION_CUES

from .conftest import E2E
from .serving import Asked, Own, agree, engine

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("vllm")

MAIN = ("cdpruner", "divprune", "vispruner", "mfpruner")
OTHERS = [name for name, pruner in PRUNERS.items() if name not in MAIN and not pruner.needs & INSIDE_CUES]
SMALL = {"hiprune": {"object_layer": 2}}  # of a tower of five blocks
EVERYTHING = ("prompt", "answer", "kept", "embeds")


def reads_text(pruner: str) -> bool:
    return bool(PRUNERS[pruner].needs & QUESTION_CUES)


@pytest.mark.parametrize("tokens", [36, 18, 9])
@pytest.mark.parametrize("pruner", MAIN)
def test_the_four_main_pruners(shapes_hf, shapes, questions, pruner, tokens):
    options = {"pruner": pruner, "visual_token_num": tokens}
    with engine(shapes_hf, options) as running:
        counts = agree(shapes.ask(questions, **options), running.ask(questions), running, reads_text(pruner))
    assert counts == dict.fromkeys(EVERYTHING, 200)


@pytest.mark.parametrize("pruner", OTHERS)
def test_the_other_pruners(shapes_hf, shapes, questions, pruner):
    options, asked = {"pruner": pruner, "keep_ratio": 0.2, **SMALL.get(pruner, {})}, questions[:40]
    with engine(shapes_hf, options) as running:
        counts = agree(shapes.ask(asked, **options), running.ask(asked), running, reads_text(pruner))
    assert counts == dict.fromkeys(EVERYTHING, 40)


@pytest.mark.parametrize(
    "options",
    [
        {"enable_chunked_prefill": True, "max_num_batched_tokens": 24, "max_num_seqs": 8},
        {"enable_prefix_caching": False, "max_num_seqs": 1},
        {"mm_processor_cache_gb": 0},
    ],
    ids=["chunked prefill", "one at a time", "no cache"],
)
def test_batches_change_nothing(shapes_hf, shapes, questions, options):
    pruner, asked = {"pruner": "cdpruner", "visual_token_num": 18}, questions[:60]
    with engine(shapes_hf, pruner, **options) as running:
        counts = agree(shapes.ask(asked, **pruner), running.ask(asked), running)
    assert counts == dict.fromkeys(EVERYTHING, 60)


@pytest.mark.parametrize("options", [{"theta": 0.5}, {"text_chunking": "bos_eos"}, {"text_tower": None}])
def test_options_of_a_pruner_and_of_a_model_arrive(shapes_hf, shapes, questions, options):
    pruner, asked = {"pruner": "cdpruner", "visual_token_num": 18}, list(questions[:20])
    asked.append(Asked("<image>\n" + "Is there a red circle beside the blue square? " * 12, questions[0].images))
    own = {name: value for name, value in options.items() if name != "text_tower"}
    with engine(shapes_hf, pruner | options) as running:
        counts = agree(shapes.ask(asked, **pruner, **own), running.ask(asked), running)
    assert counts == dict.fromkeys(EVERYTHING, 21)


def asked_of(photos) -> list[Asked]:
    return [
        *(Asked("<image>\nWhat is in the picture?", [photo]) for photo in photos),
        Asked("<image>\nHow many shapes are there?\nAnswer the question using a single word or phrase.", photos[:1]),
        Asked("What is red?"),
        Asked("<image>\n<image>\nWhich is larger?", [photos[2], photos[3]]),
    ]


@pytest.mark.parametrize("checkpoint", ["llava-v1.5-tiny", "llava-v1.6-vicuna-tiny"])
@pytest.mark.parametrize(
    "pruner",
    [
        {},
        *({"pruner": name, "visual_token_num": 64} for name in MAIN),
        {"pruner": "divprune", "visual_token_num": 40, "budget_scope": "tile"},
        {"pruner": "cdpruner", "keep_ratio": 0.1, "budget_scope": "image"},
        {"pruner": "visionzip", "visual_token_num": 64},
        {"pruner": "mmtok", "visual_token_num": 64},
        {"pruner": "eadp", "visual_token_num": 64},
        {"pruner": "zoo_prune", "visual_token_num": 64, "directions": 2},
    ],
    ids=lambda pruner: " ".join(map(str, pruner.values())) or "none",
)
def test_tiles_newlines_and_pictures_of_any_sides(converted, photos, checkpoint, pruner):
    folder, asked = E2E / "checkpoints" / checkpoint, asked_of(photos)
    own = Own(folder).ask(asked, **pruner)
    roomy = {"max_model_len": 4096, "max_num_batched_tokens": 8192, "limit_mm_per_prompt": {"image": 2}}
    with engine(converted(folder), pruner or None, **roomy) as running:
        served = running.ask(asked)
        text = bool(pruner) and reads_text(pruner["pruner"])
        counts = agree(own, served, running, text) if pruner else None
    assert [said.prompt for said in own] == [said.prompt for said in served]
    assert [said.answer for said in own] == [said.answer for said in served]
    assert counts in (None, dict.fromkeys(EVERYTHING, len(asked)))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory):
    """LLaVA-1.6 on a tiny Mistral, with the tokenizer and the settings of the tiny Vicuna."""
    folder, vicuna = tmp_path_factory.mktemp("llava-v1.6-mistral-tiny"), E2E / "checkpoints" / "llava-v1.6-vicuna-tiny"
    raw = json.loads((vicuna / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in raw.items() if key not in ("architectures", "model_type")}
    torch.manual_seed(0)
    config = LlavaMistralConfig(**kept | {"mm_vision_tower": str(E2E / "checkpoints" / "clip"), "sliding_window": None})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32, tower_in_checkpoint=True).save_pretrained(folder)
    for file in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(vicuna / file, folder)
    return folder


@pytest.mark.parametrize("pruner", [{}, {"pruner": "cdpruner", "visual_token_num": 64}], ids=["none", "cdpruner"])
def test_mistral(mistral, converted, photos, pruner):
    asked = asked_of(photos)
    own = Own(mistral).ask(asked, **pruner)
    roomy = {"max_model_len": 4096, "max_num_batched_tokens": 8192, "limit_mm_per_prompt": {"image": 2}}
    with engine(converted(mistral), pruner or None, **roomy) as running:
        served = running.ask(asked)
        counts = agree(own, served, running) if pruner else None
    assert [said.answer for said in own] == [said.answer for said in served]
    assert counts in (None, dict.fromkeys(EVERYTHING, len(asked)))
