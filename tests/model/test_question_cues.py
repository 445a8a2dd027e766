"""What a model tells pruners of the question's words, of borders and grids, by every way that images take."""

import copy
import pickle
import re

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.encoding import encode
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.padding import padding_patches

from ..watching import EVERYTHING, Watching, given
from .conftest import generate, question_prompts, with_graphs

QUESTION, OTHER = "What color is the man's shirt?", "Where?"
WORDS = ("embeds", "text_tokens")
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def told(model, texts, reads=WORDS, pixels=PIXELS, sizes=None, **options):
    """What a pruner is told of images that are read."""
    pruner = Watching(3, reads=reads)
    batch = model.plan_batch(pixels, sizes, texts, PruningOptions(pruner, **options))
    with torch.no_grad():
        model.read_batch(batch)
    return pruner.told


def table_rows(model, tokenizer, *words: str) -> torch.Tensor:
    """The embeddings of words, each by itself."""
    ids = [piece for word in words for piece in tokenizer(word, add_special_tokens=False).input_ids]
    return model.get_model().embed_tokens.weight[ids]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    from llava.model.builder import load_pretrained_model

    return load_pretrained_model(str(checkpoint), None, checkpoint.name, device="cpu", dtype="float32")


@pytest.mark.parametrize("layer", [0, 1])
def test_text_tokens_are_the_input_embeddings_of_the_questions_words(loaded, layer):
    tokenizer, model, _, _ = loaded
    expected = table_rows(model, tokenizer, "color", "man", "s", "shirt")
    if layer:
        (visual,) = late_visuals(model, [QUESTION])
        found = visual.texts["text_tokens"]
    else:
        cues = told(model, [QUESTION], pixels=PIXELS[:1])
        assert given(cues) == set(WORDS)
        (found,) = cues.text_tokens
    assert torch.equal(found[: len(expected)], expected) and not found[len(expected) :].any()


def late_visuals(model, texts, reads=WORDS):
    pruner = Watching(3, reads=reads)
    batch = model.plan_batch(PIXELS[: len(texts)], None, texts, PruningOptions(pruner, prune_layer=1))
    with torch.no_grad():
        _, late = model.read_batch(batch)
    return late.visuals


def test_questions_of_other_lengths_are_filled_up_by_zeros(loaded):
    tokenizer, model, _, _ = loaded
    cues = told(model, [QUESTION, "", OTHER])
    rows = [
        table_rows(model, tokenizer, *words)
        for words in (["color", "man", "s", "shirt"], ["see", "in", "this", "image"], ["Where?"])
    ]
    for found, expected in zip(cues.text_tokens, rows, strict=True):
        assert torch.equal(found[: len(expected)], expected) and not found[len(expected) :].any()


def test_a_question_without_a_word_has_none(loaded):
    cues = told(loaded[1], ["Answer the question using a single word or phrase."] * 3)
    assert cues.text_tokens.shape[0] == 3 and not cues.text_tokens.any()


def test_an_image_without_a_question_has_no_cue_of_it(loaded):
    pruner = Watching(3, reads=EVERYTHING)
    model = loaded[1]
    batch = model.plan_batch(PIXELS, None, [QUESTION, None, OTHER], PruningOptions(pruner))
    with torch.no_grad():
        model.read_batch(batch)
    asked, unasked = sorted(pruner.seen, key=lambda cues: -cues.shape[0])
    assert given(asked) == set(EVERYTHING) and asked.shape[0] == 2
    assert given(unasked) == {"embeds", "object_attention", "deep_attention"} and unasked.shape[0] == 1
    assert given(told(model, [None] * 3, EVERYTHING)) == given(unasked)
    without = [visual.texts.keys() | visual.cues.keys() for visual in late_visuals(model, [None], EVERYTHING)]
    assert without == [{"object_attention", "deep_attention"}]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_model_that_does_not_know_its_tokenizer_says_how_it_is_told(load, checkpoint, layer):
    tokenizer, model, _, _ = load(checkpoint)
    model.word_tokenizer = None
    call = {"images": PIXELS[:1], "max_new_tokens": 1, "texts": QUESTION}
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5]])
    model.pruning = PruningOptions(Watching(3, reads=WORDS), prune_layer=layer)
    with pytest.raises(ValueError, match=re.escape("set model.word_tokenizer = tokenizer")):
        model.generate(ids, **call)
    model.word_tokenizer = tokenizer
    assert len(model.generate(ids, **call))


def test_copies_know_their_tokenizer(loaded):
    model = loaded[1]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.word_tokenizer))):
        assert getattr(other, "word_tokenizer", other)("man").input_ids == model.word_tokenizer("man").input_ids


def test_words_need_no_text_side_of_clip(load, checkpoint):
    model = load(checkpoint, pruner=Watching(3, reads=WORDS))[1]
    assert model.get_vision_tower().relevance is None
    told(model, [QUESTION] * 3)
    assert model.get_vision_tower().relevance is None


def test_a_border_is_known_where_pictures_are_padded_and_their_sizes_given(loaded, anyres_checkpoint, load):
    model, sizes = loaded[1], [(90, 70), (40, 100), (50, 50)]
    cues = told(model, [None] * 3, ("embeds", "padding"), sizes=sizes)
    expected = torch.stack([padding_patches(size, 32, 8) for size in sizes]).float()
    assert torch.equal(cues.padding, expected) and expected.any() and cues.padding.shape == (3, 16)
    assert given(told(model, [None] * 3, ("embeds", "padding"))) == {"embeds"}
    pruner = Watching(3, reads=("embeds", "padding"))
    batch = model.plan_batch(PIXELS, sizes, [None] * 3, PruningOptions(pruner, prune_layer=1))
    with torch.no_grad():
        _, late = model.read_batch(batch)
    assert torch.equal(torch.stack([visual.cues["padding"] for visual in late.visuals]), expected)
    tiled = load(anyres_checkpoint)[1]
    tiles = [PIXELS[:1].expand(5, -1, -1, -1)]
    assert "padding" not in given(told(tiled, [None], ("embeds", "padding"), tiles, [(64, 60)], budget_scope="image"))


def test_sizes_of_other_borders_have_plans_of_their_own(loaded):
    model, reads = loaded[1], ("embeds", "padding")
    first = told(model, [None], reads, PIXELS[:1], [(100, 40)]).padding
    assert not torch.equal(told(model, [None], reads, PIXELS[:1], [(40, 100)]).padding, first)


def test_the_rows_and_columns_of_a_grid_without_its_padding_are_known(load, anyres_checkpoint):
    model = load(anyres_checkpoint)[1]
    pruner = Watching(3, reads=("embeds",))
    pixels, sizes = [PIXELS[:1].expand(5, -1, -1, -1), PIXELS[:1].expand(4, -1, -1, -1)], [(90, 70), (30, 96)]
    batch = model.plan_batch(pixels, sizes, [None] * 2, PruningOptions(Watching(3, reads=("embeds", "cls_attention"))))
    for layout in batch.plan.layouts:
        base, grid = layout.parts
        rows = int(layout.newline.sum())
        assert base.grid is None and grid.grid == (rows, len(grid.positions) // rows) and grid.grid[0] != grid.grid[1]
    seen = batch.plan.options.pruner.seen
    with torch.no_grad():
        model.read_batch(batch)
    assert {cues.grid for cues in seen} == {None, *(layout.parts[1].grid for layout in batch.plan.layouts)}
    assert not pruner.seen


@pytest.mark.parametrize("scope", ["tile", "image"])
def test_every_image_is_told_of_as_it_would_be_alone_and_step_by_step(load, anyres_checkpoint, scope):
    model = load(anyres_checkpoint)[1]
    tower, newline = model.get_vision_tower(), model.get_model().image_newline
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(tiles, 3, 32, 32, generator=generator) for tiles in (5, 4, 4, 1)]
    sizes, texts = [(90, 70), (30, 96), (96, 30), (32, 32)], [QUESTION, None, "How many are there? " * 9, OTHER]
    options = PruningOptions(Watching(5, reads=EVERYTHING), budget_scope=scope)
    with torch.no_grad():
        found, _ = model.read_batch(model.plan_batch(images, sizes, texts, options))
    kept = model.last_prune.keep
    first = 0
    for number, count in enumerate(found.counts):
        alone = model.plan_batch(images[number : number + 1], sizes[number : number + 1], [texts[number]], options)
        with torch.no_grad():
            asked = alone.texts
            features, cues = tower.cues(images[number], options.needs, asked, object_layer=2)
            cues |= {"features": features, "embeds": model._projected(features)}
            if texts[number] is not None:
                cues["text_tokens"] = model._embed_words(asked)
            (expected,) = choose(options, alone.plan.visuals(cues, newline)).kept
            embeds = alone.plan.layouts[0].take(cues["embeds"], expected, newline)
        assert torch.equal(kept[number], expected)
        assert torch.equal(found.embeds[first : first + count], embeds)
        first += count


def test_the_image_side_with_cues_of_questions_is_one_graph(loaded):
    torch._dynamo.reset()
    model = loaded[1]
    options = PruningOptions(Watching(3, reads=EVERYTHING, seen=Nothing()))
    batch = model.plan_batch(PIXELS, None, [QUESTION, OTHER, None], options)
    embedded = model._text_side(batch.texts, options)()

    def read(pixels, embedded):
        return encode(batch.plan, model.get_vision_tower(), model._projected, pixels, embedded)

    with torch.no_grad():
        expected = read(batch.pixels, embedded)
        found = torch.compile(read, fullgraph=True, backend="eager")(batch.pixels, embedded)
    assert torch.equal(found[1], expected[1]) and torch.equal(found[0], expected[0])


class Nothing(list):
    """Keeps none of what is noted."""

    def append(self, _) -> None:
        pass


def test_replayed_answers_are_those_of_each_question(load, checkpoint, images, graphs):
    tokenizer, model, processor, _ = load(checkpoint, pruner=Watching(3, reads=EVERYTHING, seen=Nothing()))
    asked = [[QUESTION, OTHER, "How many?"], ["Is it red?", QUESTION, ""], ["a " * 100, OTHER, OTHER]] * 2
    prompts = question_prompts(tokenizer, asked[0])

    def kept(texts):
        generate(model, tokenizer, processor, images, texts, prompts)
        return [each.tolist() for each in model.last_prune.keep]

    expected = [kept(texts) for texts in asked]
    with_graphs(model)
    assert [kept(texts) for texts in asked] == expected
    assert graphs and any(graph.calls > 1 for graph in graphs)
    assert len({str(each) for each in expected}) == 3


@pytest.mark.parametrize("layer", [0, 1])
def test_a_batch_of_questions_is_answered_as_each_is_alone(load, checkpoint, images, layer):
    options = PruningOptions(Watching(3, reads=EVERYTHING, seen=Nothing()), prune_layer=layer)
    tokenizer, model, processor, _ = load(checkpoint)
    model.pruning = options
    texts = [QUESTION, "How many are there? " * 9, OTHER]
    prompts = question_prompts(tokenizer, texts)
    generate(model, tokenizer, processor, images, texts, prompts)
    together = model.last_prune.keep
    for number, text in enumerate(texts):
        one = slice(number, number + 1)
        generate(model, tokenizer, processor, images[one], [text], prompts[one])
        assert torch.equal(model.last_prune.keep[0], together[number])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_words_of_a_model_in_half_precision_come_to_the_pruner_in_float32(load, checkpoint, dtype):
    model = load(checkpoint, dtype=dtype)[1]
    cues = told(model, [QUESTION] * 3, EVERYTHING, pixels=PIXELS.to(model.dtype))
    assert {getattr(cues, name).dtype for name in EVERYTHING} == {torch.float32}
    assert all(torch.isfinite(getattr(cues, name)).all() for name in EVERYTHING)


def test_a_block_that_the_tower_does_not_have_is_refused_where_the_pruner_is_set(loaded):
    model = loaded[1]
    with pytest.raises(ValueError, match="object_attention of block 9: the vision tower has blocks 1 to 4"):
        model.set_pruner(Watching(3, reads=("object_attention",), layer=9))
    assert model.pruner is None


def test_every_cue_of_clips_text_side_loads_it(load, checkpoint):
    for cue in sorted(CLIP_TEXT_CUES):
        model = load(checkpoint)[1]
        model.set_pruner(Watching(3, reads=("embeds", cue)))
        assert model.get_vision_tower().relevance is not None


def test_images_in_prompts_bring_their_questions(load, checkpoint, images):
    """Through the whole of ``generate``, in which a row may show two images."""
    tokenizer, model, processor, _ = load(checkpoint)
    pruner = Watching(3, reads=WORDS)
    pixels = process_images(images, processor, model.config)
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX, 5], [1, 7, IMAGE_TOKEN_INDEX, 5]])
    model.generate(ids, images=pixels, texts=[QUESTION, OTHER], max_new_tokens=1, pruning=PruningOptions(pruner))
    first, second, third = pruner.told.text_tokens
    assert torch.equal(first, second) and not torch.equal(first, third)
