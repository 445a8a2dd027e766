"""What pruners are told of the questions that Transformers' own models are asked."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from llava.model.vocabulary import load_tokenizer
from llava.pruning import prune
from llava.selecting.options import HOSTED, PruningOptions

from ..watching import Watching, given
from .conftest import BUILDERS, IMAGE, Letters, llama

CHECKPOINTS = Path(__file__).parents[1] / "e2e" / "checkpoints"
CLIP = str(CHECKPOINTS / "clip")
WORDS, JOINT = ("embeds", "text_tokens"), ("embeds", "relevance", "joint_embeds", "text_sequence")
QUESTION, OTHER = "What color is the man's shirt?", "Where?"


def rows_of(model, *words):
    """The input embeddings of words by the tokenizer above."""
    ids = Letters()(list(words), True, False)["input_ids"][1:]
    return model.get_input_embeddings().weight[ids]


def told(tiny, reads, pruner=None, **options):
    pruner = pruner or Watching(1, reads=reads)
    with prune(tiny.model, pruner, **options), torch.no_grad():
        tiny.model(**tiny.inputs)
    return pruner.seen


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_gives_the_words_of_the_question(tiny_of, name, layer):
    tiny = tiny_of(name)
    asked = [QUESTION, OTHER]
    qwen = name.startswith("qwen")
    words = [
        ["Question:", *question.split()] if qwen else kept
        for question, kept in zip(asked, (["color", "man", "s", "shirt"], ["Where?"]), strict=True)
    ]
    expected = [rows_of(tiny.model, *each) for each in words]
    seen = told(tiny, WORDS, texts=asked, tokenizer=Letters(), prune_layer=layer)
    found = {int(row.any(dim=1).sum()) for cues in seen for row in cues.text_tokens}
    assert found == {len(row) for row in expected}
    for cues in seen:
        assert given(cues) == set(WORDS)
        for row in cues.text_tokens:
            (own,) = [each for each in expected if len(each) == row.any(dim=1).sum()]
            assert torch.equal(row[: len(own)], own) and not row[len(own) :].any()


def test_one_question_may_be_for_all_and_a_prompt_may_have_none(tiny_llava):
    (cues,) = told(tiny_llava, WORDS, texts=QUESTION, tokenizer=Letters())
    assert cues.text_tokens.shape[0] == 3 and torch.equal(cues.text_tokens[0], cues.text_tokens[2])
    asked, unasked = told(tiny_llava, WORDS, texts=[QUESTION, None], tokenizer=Letters())
    assert given(asked) == set(WORDS) and asked.shape[0] == 2
    assert given(unasked) == {"embeds"} and unasked.shape[0] == 1


@pytest.mark.parametrize("name", ["llava", "qwen2_images"])
def test_nothing_asked_is_what_is_seen(tiny_of, name):
    tiny = tiny_of(name)
    seen = told(tiny, WORDS, texts="", tokenizer=Letters())
    words = ["see", "in", "this", "image"]
    if name != "llava":
        words = ["Question:", "What", "do", "you", "see", "in", "this", "image?"]
    assert torch.equal(seen[0].text_tokens[0], rows_of(tiny.model, *words))


def test_a_question_without_words_has_none(tiny_llava):
    (cues,) = told(tiny_llava, WORDS, texts="Answer the question using a single word or phrase.", tokenizer=Letters())
    assert cues.text_tokens.shape[:2] == (3, 1) and not cues.text_tokens.any()


def test_words_without_a_tokenizer_are_refused_before_anything_is_hooked(tiny_llava):
    message = "text_tokens are the words of the question: give prune the model's tokenizer"
    with pytest.raises(ValueError, match=message):
        prune(tiny_llava.model, Watching(1, reads=WORDS), texts=QUESTION)
    assert not hasattr(tiny_llava.model, "_pruning") and not tiny_llava.model._forward_hooks
    other = PruningOptions.of(HOSTED, pruner=Watching(1, reads=WORDS))
    with (
        prune(tiny_llava.model, "divprune", visual_token_num=1, texts=QUESTION),
        pytest.raises(ValueError, match=message),
    ):
        tiny_llava.model.generate(**tiny_llava.inputs, max_new_tokens=1, pruning=other)


def test_words_without_a_question_are_an_error(tiny_llava):
    with pytest.raises(ValueError, match="a pruner that reads words, need the question of each prompt: `texts` has 0"):
        told(tiny_llava, WORDS, tokenizer=Letters())
    with pytest.raises(ValueError, match="`texts` has 1 entries for 2 prompts"):
        told(tiny_llava, WORDS, texts=[QUESTION], tokenizer=Letters())


@pytest.mark.parametrize("reads", [JOINT, ("embeds", "joint_embeds"), ("embeds", "text_sequence")])
@pytest.mark.parametrize("name", ["llava", "qwen2_images", "onevision"])
def test_the_joint_space_is_clips_alone(tiny_of, name, reads):
    model = tiny_of(name).model
    with pytest.raises(ValueError, match='cues of CLIP\'s joint space: they need relevance="clip_text" and text_tower'):
        prune(model, Watching(1, reads=reads), texts=QUESTION)
    assert not hasattr(model, "_pruning")


@pytest.fixture(scope="module")
def clip():
    return CLIPModel.from_pretrained(CLIP, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(clip):
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig.from_pretrained(CLIP), text_config=llama(), image_token_index=IMAGE
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(
        {name.removeprefix("vision_model."): weight for name, weight in clip.vision_model.state_dict().items()},
        strict=False,
    )
    return model


def inputs(prompts: int):
    pixels = torch.randn(prompts, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, *[IMAGE] * 576, 5 + row] for row in range(prompts)])
    return {"input_ids": ids, "pixel_values": pixels}


@pytest.mark.parametrize("layer", [0, 1])
def test_the_joint_space_and_text_sequences_are_those_of_clip(model, clip, layer):
    long = "a red circle and a blue square " * 12
    texts, given_to_model, pruner = [QUESTION, long, None], inputs(3), Watching(8, reads=JOINT)
    with prune(
        model, pruner, relevance="clip_text", text_tower=CLIP, texts=texts, prune_layer=layer
    ), torch.no_grad():  # fmt: skip
        model(**given_to_model)
    asked, unasked = pruner.seen
    assert given(asked) == set(JOINT) and given(unasked) == {"embeds"}
    with torch.no_grad():
        hidden = model.model.vision_tower(
            given_to_model["pixel_values"], output_hidden_states=True
        ).hidden_states[-2]  # fmt: skip
        patches = clip.visual_projection(model.model.vision_tower.post_layernorm(hidden[:2, 1:]))
        torch.testing.assert_close(asked.joint_embeds, patches, atol=1e-4, rtol=1e-4)
        for text, found in zip(texts[:2], asked.text_sequence, strict=True):
            ids = CLIPTokenizer.from_pretrained(CLIP)(text, verbose=False).input_ids
            segments = -(-len(ids) // 77)
            padded = torch.tensor(ids + [0] * (77 * segments - len(ids))).view(segments, 77)
            mask = (torch.arange(77 * segments) < len(ids)).long().view(segments, 77)
            states = clip.text_model(input_ids=padded, attention_mask=mask).last_hidden_state
            torch.testing.assert_close(found[:segments], clip.text_projection(states), atol=1e-4, rtol=1e-4)
            assert not found[segments:].any()


def test_a_batch_is_told_what_each_prompt_is_alone(model):
    tokenizer = load_tokenizer(CHECKPOINTS / "llava-v1.5-tiny")
    small = Letters()
    assert tokenizer(["man"], is_split_into_words=True).input_ids[0] == small.bos_token_id
    texts, every = [QUESTION, "a red circle " * 30, OTHER], inputs(3)
    reads = (*JOINT, "text_tokens")
    settings = {"relevance": "clip_text", "text_tower": CLIP, "tokenizer": small}
    with prune(model, Watching(8, reads=reads), texts=texts, **settings) as record, torch.no_grad():
        model(**every)
        together = record.keep
        for row, text in enumerate(texts):
            record.texts = text
            model(**{name: value[row : row + 1] for name, value in every.items()})
            assert torch.equal(record.keep[0], together[row])


def test_the_text_side_is_not_loaded_for_words(tiny_llava, tmp_path):
    options = {"relevance": "clip_text", "text_tower": str(tmp_path), "texts": QUESTION}  # an empty folder
    assert told(tiny_llava, WORDS, tokenizer=Letters(), **options)
    with pytest.raises(OSError, match=str(tmp_path)):
        prune(tiny_llava.model, Watching(1, reads=JOINT), **options)
