"""The choice among the tokens of images and videos: budgets, parts, batches, newline tokens."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, resolve_pruner
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual
from llava.selecting.record import PruneRecord

CHOOSERS = [name for name, cls in PRUNERS.items() if cls.needs <= {"features", "embeds", "cls_attention", "relevance"}]


def seen(*lengths, seed=0, newlines=False, relevance=True, group=0) -> Visual:
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
    cues = {"features": values[:, :6], "cls_attention": values[:, 6].abs(), "embeds": values[:, 6:13]}
    if relevance:
        cues["relevance"] = values[:, 13]
    return Visual(start, parts, cues, newline if newlines else None)


def kept_of(pruner, visuals, scope=None):
    """The kept positions of each image."""
    return choose(PruningOptions(pruner, scope), visuals).kept


def test_every_tile_has_its_budget(spy):
    kept = kept_of(replace(spy, visual_token_num=2), [seen(4, 5), seen(6, seed=1)])
    assert [positions.tolist() for positions in kept] == [[0, 1, 4, 5], [0, 1]]


def test_a_ratio_is_of_each_part(spy):
    kept = kept_of(replace(spy, visual_token_num=None, keep_ratio=0.5), [seen(4, 6)])
    assert kept[0].tolist() == [0, 1, 4, 5, 6]


def test_a_part_of_several_tiles_has_their_budgets():
    visual = Visual(10, [Part(torch.arange(4)), Part(torch.arange(4, 10), tiles=2)])
    assert visual.tiles == 3
    kept = kept_of(resolve_pruner("uniform", 2), [visual])
    assert (kept[0] < 4).sum() == 2
    assert (kept[0] >= 4).sum() == 4


def test_an_image_as_a_whole_has_the_sum_of_the_budgets(spy):
    kept = kept_of(replace(spy, visual_token_num=2), [seen(4, 5)], "image")
    assert kept[0].tolist() == [0, 1, 2, 3]


def test_newline_tokens_are_kept_where_they_are_not_candidates(spy):
    image = seen(3, 3, newlines=True)  # newlines at 3 and 7
    assert kept_of(spy, [image])[0].tolist() == [0, 3, 4, 7]
    assert kept_of(spy, [image], "image")[0].tolist() == [0, 1, 3, 7]


def test_newline_tokens_compete_where_embeddings_are_all_that_counts():
    """DivPrune on a whole image: a newline that equals another token is the first to go."""
    image = seen(3, 3, newlines=True)
    image.cues["embeds"][7] = image.cues["embeds"][0]
    kept = kept_of(resolve_pruner("divprune", keep_ratio=7 / 8), [image])[0].tolist()
    assert len(kept) == 7
    assert not {0, 7} <= set(kept)


def test_a_pruner_is_told_the_cues_of_the_tokens_of_each_row(spy):
    images = [seen(4, 4, newlines=True), seen(4, seed=1, newlines=True)]
    kept_of(replace(spy, visual_token_num=2), images)
    (told,) = spy.told
    rows = [(image, part.positions) for image in images for part in image.parts]
    assert told.image_index.tolist() == [0, 0, 1]
    for row, (image, positions) in enumerate(rows):
        for name in ("features", "embeds", "cls_attention", "relevance"):
            assert torch.equal(getattr(told, name)[row], image.cues[name][positions])


def test_parts_of_another_group_have_statistics_of_their_own(spy):
    kept_of(replace(spy, visual_token_num=2), [seen(4, 4, group=1), seen(4, seed=1)])
    assert spy.told[0].image_index.tolist() == [0, 1, 2]


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
    together = kept_of(pruner, images, scope)
    for image, kept in zip(images, together, strict=True):
        assert torch.equal(kept_of(pruner, [image], scope)[0], kept)
        assert torch.equal(kept, kept.unique())


def test_no_cue_is_touched_that_the_pruner_does_not_read_and_a_single_row_is_a_view(spy):
    @dataclass(frozen=True)
    class Reads(type(spy)):
        needs = frozenset({"embeds"})

    reader = Reads(visual_token_num=2)
    image = seen(4)
    kept_of(reader, [image])
    (told,) = reader.told
    assert told.embeds.data_ptr() == image.cues["embeds"].data_ptr()
    assert told.features is told.cls_attention is told.relevance is None


def test_a_pruner_that_reads_nothing_needs_no_cues():
    visuals = [Visual(6, [Part(torch.arange(6))]), Visual(4, [Part(torch.arange(4))])]
    assert [len(positions) for positions in kept_of(resolve_pruner("random", 2), visuals)] == [2, 2]


def test_merged_tokens_stand_in_the_places_of_the_kept_ones():
    image, tokens = seen(4, newlines=True), torch.randn(5, 3)
    trim = resolve_pruner("trim", 2)
    image = replace(image, cues={"dot_relevance": torch.tensor([0.1, 0.9, 0.3, 0.2, 0.0])})
    choice = choose(PruningOptions(trim), [image], [tokens])
    assert choice.kept[0].tolist() == [1, 3, 4]  # the most relevant; the mean in the last other place; the newline
    assert torch.equal(choice.merged[0][[0, 1, 2, 4]], tokens[[0, 1, 2, 4]])
    torch.testing.assert_close(choice.merged[0][3], tokens[[0, 2, 3]].mean(dim=0))


def test_the_record_counts_what_was_kept():
    image = seen(3, 3, newlines=True)
    record = PruneRecord.of([image, seen(4)], [torch.tensor([0, 3, 4]), torch.tensor([1])])
    assert (record.visual_tokens, record.newline_tokens, record.tokens_before) == ([3, 1], [1, 0], [8, 4])
    plain = PruneRecord.of([image], None)
    assert plain.keep is None and (plain.visual_tokens, plain.newline_tokens, plain.tokens_before) == ([8], [2], [8])


@pytest.mark.parametrize("scope", ["tile", "image"])
@pytest.mark.parametrize("name", ["cls_topk", "uniform", "visionzip", "prumerge"])
def test_nothing_is_read_back_to_choose(name, scope):
    """Tensors of the meta device have no values to read."""
    parts, newline = [Part(torch.arange(9)), Part(torch.arange(9, 18))], torch.arange(19) == 18
    cues = {name: torch.empty(19, device="meta") for name in ("cls_attention", "last_attention")}
    cues |= {name: torch.empty(19, 4, device="meta") for name in ("keys", "last_keys")}
    options = PruningOptions(resolve_pruner(name, 4), scope)
    choice = choose(options, [Visual(19, parts, cues, newline)], [torch.empty(19, 5, device="meta")])
    assert choice.kept[0].device.type == "meta" and choice.kept[0].shape == (9,)
