"""The choice among the tokens of images and videos: budgets, parts, batches, newline tokens."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, resolve_pruner
from llava.selecting.choose import Part, Seen, Visual, choose, text_relevance

CHOOSERS = [name for name, cls in PRUNERS.items() if cls.needs <= {"features", "embeds", "cls_attention", "relevance"}]


def seen(*lengths, seed=0, newlines=False, relevance=True, group=0) -> Seen:
    """An image whose parts have these lengths, each with a newline token behind it on request."""
    generator = torch.Generator().manual_seed(seed)
    parts, start = [], 0
    for index, length in enumerate(lengths):
        parts.append(Part(torch.arange(start, start + length), group=group * index))
        start += length + newlines
    newline = torch.ones(start, dtype=torch.bool)
    for part in parts:
        newline[part.positions] = False
    values = torch.randn(start, 14, generator=generator)
    visual = Visual(
        start, parts, features=values[:, :6], cls_attention=values[:, 6].abs(), newline=newline if newlines else None
    )
    return Seen(visual, values[:, 6:13], values[:, 13] if relevance else None)


def test_relevance_is_the_cosine_to_the_mean_of_the_text():
    embeds = torch.tensor([[3.0, 3.0], [-1.0, -1.0], [1.0, -1.0], [0.0, 5.0]])
    text = torch.tensor([[2.0, 0.0], [0.0, 2.0]])  # mean (1, 1)
    expected = torch.tensor([1.0, -1.0, 0.0, 0.5**0.5])
    torch.testing.assert_close(text_relevance(embeds, text), expected)
    assert text_relevance(embeds, text[:0]) is None


def test_every_tile_has_its_budget(spy):
    kept, _ = choose(replace(spy, visual_token_num=2), [seen(4, 5), seen(6, seed=1)])
    assert [positions.tolist() for positions in kept] == [[0, 1, 4, 5], [0, 1]]


def test_a_ratio_is_of_each_part(spy):
    kept, _ = choose(replace(spy, visual_token_num=None, keep_ratio=0.5), [seen(4, 6)])
    assert kept[0].tolist() == [0, 1, 4, 5, 6]


def test_a_part_of_several_tiles_has_their_budgets():
    visual = Visual(10, [Part(torch.arange(4)), Part(torch.arange(4, 10), tiles=2)])
    assert visual.tiles == 3
    kept, _ = choose(resolve_pruner("uniform", 2), [Seen(visual, torch.randn(10, 3))])
    assert (kept[0] < 4).sum() == 2
    assert (kept[0] >= 4).sum() == 4


def test_an_image_as_a_whole_has_the_sum_of_the_budgets(spy):
    kept, _ = choose(replace(spy, visual_token_num=2), [seen(4, 5)], budget_scope="image")
    assert kept[0].tolist() == [0, 1, 2, 3]


def test_newline_tokens_are_kept_where_they_are_not_candidates(spy):
    image = seen(3, 3, newlines=True)  # newlines at 3 and 7
    assert choose(spy, [image])[0][0].tolist() == [0, 3, 4, 7]
    assert choose(spy, [image], "image")[0][0].tolist() == [0, 1, 3, 7]


def test_newline_tokens_compete_where_embeddings_are_all_that_counts():
    """DivPrune on a whole image: a newline that equals another token is the first to go."""
    image = seen(3, 3, newlines=True)
    image.embeds[7] = image.embeds[0]
    kept = choose(resolve_pruner("divprune", keep_ratio=7 / 8), [image])[0][0].tolist()
    assert len(kept) == 7
    assert not {0, 7} <= set(kept)


def test_a_pruner_is_told_the_cues_of_the_tokens_of_each_row(spy):
    images = [seen(4, 4, newlines=True), seen(4, seed=1, newlines=True)]
    choose(replace(spy, visual_token_num=2), images)
    (told,) = spy.told
    rows = [(image, part.positions) for image in images for part in image.visual.parts]
    assert told.image_index.tolist() == [0, 0, 1]
    for row, (image, positions) in enumerate(rows):
        assert torch.equal(told.features[row], image.visual.features[positions])
        assert torch.equal(told.embeds[row], image.embeds[positions])
        assert torch.equal(told.cls_attention[row], image.visual.cls_attention[positions])
        assert torch.equal(told.relevance[row], image.relevance[positions])


def test_parts_of_another_group_have_statistics_of_their_own(spy):
    choose(replace(spy, visual_token_num=2), [seen(4, 4, group=1), seen(4, seed=1)])
    assert spy.told[0].image_index.tolist() == [0, 1, 2]


def test_without_features_embeddings_stand_in(spy):
    visual = Visual(4, [Part(torch.arange(4))], cls_attention=torch.rand(4))
    choose(replace(spy, visual_token_num=2), [Seen(visual, torch.randn(4, 3))])
    assert torch.equal(spy.told[0].features, spy.told[0].embeds)
    assert spy.told[0].relevance is None


@pytest.mark.parametrize("name", CHOOSERS)
@pytest.mark.parametrize("scope", [None, "tile", "image"])
@settings(max_examples=10)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=4),
    newlines=st.booleans(),
    data=st.data(),
)
def test_images_beside_one_another_change_nothing(name, scope, sizes, newlines, data):
    images = [
        seen(*lengths, seed=seed, newlines=newlines, relevance=data.draw(st.booleans()))
        for seed, lengths in enumerate(sizes)
    ]
    pruner = resolve_pruner(name, keep_ratio=0.5)
    together, _ = choose(pruner, images, scope)
    for image, kept in zip(images, together, strict=True):
        assert torch.equal(choose(pruner, [image], scope)[0][0], kept)
        assert torch.equal(kept, kept.unique())
