"""Cues that vLLM has a part in: words of its table, a border by its processor, a copy of its projector."""

from types import SimpleNamespace

import pytest
import torch

from .serving import Asked, agree, engine

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

EVERYTHING = ("prompt", "answer", "kept", "embeds")
SENSITIVE = {"pruner": "zoo_prune", "visual_token_num": 18, "directions": 4}


@pytest.fixture(scope="module")
def mmtok(shapes_hf):
    with engine(shapes_hf, {"pruner": "mmtok", "visual_token_num": 9}, limit_mm_per_prompt={"image": 3}) as running:
        yield running


def test_words_choose_as_here_and_a_cached_picture_is_chosen_from_anew_for_others(mmtok, shapes, questions):
    picture, wide = questions[4].images[0], questions[9].images[0]  # the second has a border
    words = [
        "Is there a red circle?",
        "What number is on the plate?",
        "Answer the question using a single word or phrase.",
    ]
    asked = [Asked(f"<image>\n{text}", [each]) for text in words for each in (picture, wide)]
    asked += [Asked("<image>\n<image>\nWhich is larger?", [picture, wide]), Asked("Is that so?")]
    own = shapes.ask(asked, pruner="mmtok", visual_token_num=9)
    assert len({tuple(said.kept[0]) for said in own[:6:2]}) > 1, "the questions must choose otherwise to show anything"
    for _ in range(2):
        assert agree(own, mmtok.ask(asked), mmtok) == dict.fromkeys(EVERYTHING, len(asked))


def test_sensitivity_is_measured_of_a_copy_of_the_projector(shapes_hf, shapes, questions):
    asked = questions[:6]
    with engine(shapes_hf, SENSITIVE) as running:
        plain = running.model.images.plain_projector()
        own = shapes.model.get_model().mm_projector.state_dict()
        assert all(
            torch.equal(weight, other) for weight, other in zip(plain.state_dict().values(), own.values(), strict=True)
        )
        counts = agree(shapes.ask(asked, **SENSITIVE), running.ask(asked), running, reads_text=False)
    assert counts == dict.fromkeys(EVERYTHING, len(asked))


@pytest.fixture
def plain():
    from llava.vllm.models import PlainProjector

    config = SimpleNamespace(
        vision_config=SimpleNamespace(hidden_size=4),
        text_config=SimpleNamespace(hidden_size=6),
        multimodal_projector_bias=True,
        projector_hidden_act="gelu",
    )
    return PlainProjector(config)


def test_weights_are_handed_on_and_those_of_the_projector_copied_in_float32(plain):
    shapes = {name: weight.shape for name, weight in plain.named_parameters()}
    weights = [(f"model.multi_modal_projector.{name}", torch.randn(shape).half()) for name, shape in shapes.items()]
    weights.append(("language_model.model.embed_tokens.weight", torch.randn(3, 6)))
    assert [*plain.noting(iter(weights))] == weights
    for (_, given), own in zip(weights, plain.parameters(), strict=False):
        assert own.dtype == torch.float32 and torch.equal(own, given.float())


@pytest.mark.parametrize("weight", [torch.zeros(6, 4, dtype=torch.uint8), torch.zeros(12, 1)])
def test_a_quantised_projector_is_refused(plain, weight):
    with pytest.raises(ValueError, match="^visual_pruner: sensitivity needs a projector that is not quantised"):
        [*plain.noting([("multi_modal_projector.linear_1.weight", weight)])]


def test_a_server_without_a_tokenizer_cannot_read_words():
    from llava.vllm.models import _tokenizer

    with pytest.raises(ValueError, match="^visual_pruner: text_tokens are read with a tokenizer of Transformers"):
        _tokenizer(SimpleNamespace(skip_tokenizer_init=True))
