"""CDPruner and no pruner in vLLM: what it reads and answers is what this project does, to the last bit."""

import pytest
import torch

from .serving import Asked, agree, engine

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

ALL = {"prompt": 200, "answer": 200, "kept": 200, "embeds": 200}
PRUNER = {"pruner": "cdpruner", "visual_token_num": 18}


@pytest.fixture(scope="module")
def cdpruner(shapes_hf):
    with engine(shapes_hf, PRUNER, limit_mm_per_prompt={"image": 3}) as running:
        yield running


def test_every_question_is_answered_as_here(cdpruner, shapes, questions):
    assert agree(shapes.ask(questions, **PRUNER), cdpruner.ask(questions), cdpruner) == ALL


def test_prompts_without_pictures_with_two_and_with_three_stand_beside_others(cdpruner, shapes, questions):
    first, second = questions[0].images[0], questions[1].images[0]
    asked = [
        Asked("Which of these is red?"),
        Asked("<image>\n<image>\nWhich is larger?", [first, second]),
        Asked("<image> and <image>\nWhich is larger?", [second, first]),
        Asked("<image>\nHow many shapes are there?", [second]),
        Asked("Is that so?"),
        Asked("<image>\n<image>\n<image>\nWhat color is the circle?", [first, second, first]),
    ]
    counts = agree(shapes.ask(asked, **PRUNER), cdpruner.ask(asked), cdpruner)
    assert counts == dict.fromkeys(ALL, len(asked))


def test_a_cached_picture_is_chosen_from_anew_for_another_question(cdpruner, shapes, questions):
    picture, other = questions[4].images[0], questions[9].images[0]
    words = ["Is there a red circle?", "What number is on the plate?", "How many shapes are there?"]
    asked = [Asked(f"<image>\n{text}", [each]) for text in words for each in (picture, other)]
    own = shapes.ask(asked, **PRUNER)
    assert len({tuple(said.kept[0]) for said in own[::2]}) > 1, "the questions must choose otherwise to show anything"
    for _ in range(2):
        assert agree(own, cdpruner.ask(asked), cdpruner)["answer"] == len(asked)
    known = len(cdpruner.encoded)
    cdpruner.ask(asked)
    assert len(cdpruner.encoded) == known, "the same picture with the same question is not encoded again"


def test_a_client_may_name_the_question(cdpruner, shapes, questions):
    picture = questions[7].images[0]
    (said,) = shapes.ask([Asked("<image>\nWhat shape is the red object?", [picture])], **PRUNER)
    asked = [Asked("<image>\nWhat shape is the red object? Think first.", [picture])]
    cdpruner.ask(asked, mm_processor_kwargs={"question": "What shape is the red object?"})
    text, pixels, kept, embeds = cdpruner.encoded[-1]
    assert (text, kept) == (said.query, said.kept[0]) and torch.equal(embeds, said.embeds[0])
    with pytest.raises(ValueError, match="question must be a string, not int"):
        cdpruner.ask(asked, mm_processor_kwargs={"question": 3})


def test_embeddings_in_place_of_a_picture_are_refused(cdpruner):
    request = {"prompt": "USER: <image>\nWhat? ASSISTANT:", "multi_modal_data": {"image": torch.zeros(1, 18, 192)}}
    with pytest.raises(ValueError, match="image_embeds"):
        cdpruner.llm.generate([request], use_tqdm=False)


def test_without_the_option_it_is_vllms_own_class(shapes_hf, shapes, questions):
    from vllm.model_executor.models.llava import LlavaForConditionalGeneration

    with engine(shapes_hf) as running:
        assert type(running.model) is LlavaForConditionalGeneration
        own, served = shapes.ask(questions), running.ask(questions)
    assert [said.prompt for said in own] == [said.prompt for said in served]
    assert [said.answer for said in own] == [said.answer for said in served]
