"""A cache whose steps can be replayed, passes over prompts that can, and which calls have them."""

import pytest
import torch
from transformers import DynamicCache

from llava import compat
from llava.model import decoding, llava_arch
from llava.model.decoding import Decoder, SlotCache
from llava.model.prompts import needed

from .conftest import QUESTIONS, generate, question_prompts, with_graphs


@pytest.mark.parametrize("backbone", ["llama", "mistral"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_replayed_pass_over_prompts_has_the_bits_of_the_model(load, make_checkpoint, graphs, backbone, batch):
    options = {"sliding_window": None} if backbone == "mistral" else {}
    model = load(make_checkpoint(backbone, **options))[1]
    generator = torch.Generator().manual_seed(0)
    positions = torch.arange(9).repeat(batch, 1) * 2  # with gaps, as of a pruned prompt that keeps its numbers

    def read(cache, embeds):
        given = {"inputs_embeds": embeds, "position_ids": positions, "use_cache": True, "logits_to_keep": 1}
        with torch.no_grad():
            logits = model(**given, **compat.cache_argument(cache)).logits
        return logits, [(layer.keys, layer.values) for layer in cache.layers]

    drawn = [torch.randn(batch, 9, 32, generator=generator) for _ in range(4)]
    plain = [read(DynamicCache(config=model.config), embeds) for embeds in drawn]
    with_graphs(model)
    for (logits, states), embeds in zip(plain, drawn, strict=True):
        found, filled = read(DynamicCache(config=model.config), embeds)
        assert torch.equal(found, logits)
        assert all(
            torch.equal(*pair)
            for own, other in zip(filled, states, strict=True)
            for pair in zip(own, other, strict=True)
        )
    assert [graph.calls for graph in graphs] == [2]
    model.train()
    read(DynamicCache(config=model.config), drawn[0])
    model.eval()
    with torch.no_grad():  # what asks for more, or has padding, is not replayed
        given = {"position_ids": positions, "use_cache": True, "logits_to_keep": 1}
        model(inputs_embeds=drawn[0], **given, **compat.cache_argument(DynamicCache()), output_hidden_states=True)
        mask = torch.arange(9).repeat(batch, 1) > 0
        model(inputs_embeds=drawn[0], **given, **compat.cache_argument(DynamicCache()), attention_mask=mask)
    assert [graph.calls for graph in graphs] == [2]


def test_an_answer_may_begin_with_a_replayed_pass(load, checkpoint, graphs, images, monkeypatch):
    monkeypatch.setattr(llava_arch, "needed", lambda mask, device, cache: None)  # as on a GPU
    tokenizer, model, processor, _ = load(checkpoint, pruner="cdpruner", visual_token_num=6)
    inputs = (images[:1], QUESTIONS[:1], question_prompts(tokenizer, QUESTIONS[:1]))
    plain = generate(model, tokenizer, processor, *inputs, min_new_tokens=8)
    with_graphs(model)
    for _ in range(4):
        assert torch.equal(generate(model, tokenizer, processor, *inputs, min_new_tokens=8), plain)
    assert [graph.calls for graph in graphs if "embeds" in graph.inputs] == [2]


def test_a_stale_position_is_not_read(load, checkpoint, graphs, images):
    """A slot holds what an earlier, longer prompt left, which may be anything."""
    tokenizer, model, processor, _ = load(checkpoint)
    inputs = (images[:1], QUESTIONS[:1], question_prompts(tokenizer, QUESTIONS[:1]))
    plain = generate(model, tokenizer, processor, *inputs, min_new_tokens=8)
    with_graphs(model)
    generate(model, tokenizer, processor, *inputs, min_new_tokens=8)
    (slot,) = model._decoder._free
    slot.states.fill_(float("nan"))
    assert torch.equal(generate(model, tokenizer, processor, *inputs, min_new_tokens=8), plain)
    assert model._decoder._free == [slot]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"max_new_tokens": 1},
        {"cache_implementation": "static"},
        {"use_cache": False},
        {"num_return_sequences": 2},
    ],
)
def test_other_ways_to_decode_have_their_own_caches(load, checkpoint, options):
    model = load(checkpoint)[1]
    decoder = Decoder(capture=False)
    embeds = torch.zeros(2, 5, 32)
    assert decoder.cache(model.config, embeds, {"max_new_tokens": 8} | options) is None
    lent = decoder.cache(model.config, embeds, {"max_new_tokens": 8, "do_sample": False, "num_beams": 1})
    assert isinstance(lent, SlotCache) and not lent.is_compileable and lent.get_seq_length() == 0


def test_caches_are_lent_to_one_call_at_a_time(load, checkpoint, monkeypatch):
    monkeypatch.setattr(decoding, "KEPT", 1)
    config, decoder = load(checkpoint)[1].config, Decoder(capture=False)
    one, other = (decoder.cache(config, torch.zeros(1, 5, 32), {"max_new_tokens": 8}) for _ in range(2))
    assert one.slot is not other.slot
    decoder.give_back(one), decoder.give_back(other)
    again = decoder.cache(config, torch.zeros(1, 30, 32), {"max_new_tokens": 8})
    assert again.slot is other.slot and decoder._free == []  # lengths up to 64 share one
    assert decoder.cache(config, torch.zeros(1, 60, 32), {"max_new_tokens": 8}).slot.capacity == 128


def test_of_large_caches_one_is_kept(load, checkpoint, monkeypatch):
    config, decoder = load(checkpoint)[1].config, Decoder(capture=False)
    lent = [decoder.cache(config, torch.zeros(batch, 5, 32), {"max_new_tokens": 8}) for batch in (1, 2, 3)]
    for cache in lent[:2]:
        cache.fill(torch.zeros(2, 2, cache.slot.batch, 2, 5, 8))
        decoder.give_back(cache)
    assert decoder._free == [lent[0].slot, lent[1].slot]
    monkeypatch.setattr(decoding, "KEPT_BYTES", lent[1].slot.nbytes())
    decoder.give_back(lent[2])
    assert decoder._free == [lent[1].slot, lent[2].slot]  # the last has none yet
    lent[2].fill(torch.zeros(2, 2, 3, 2, 5, 8))
    decoder.give_back(decoder.cache(config, torch.zeros(3, 5, 32), {"max_new_tokens": 8}))
    assert decoder._free == [lent[2].slot]


def test_a_mask_is_left_out_where_it_would_be_waited_for():
    device, cache, full = torch.device("meta"), object(), torch.ones(2, 3, dtype=torch.long)
    assert needed(full, device, cache) is None
    gap = full.clone()
    gap[0, 0] = 0
    for mask, place, beside in ((gap, device, cache), (full, device, None), (full, torch.device("cpu"), cache)):
        assert needed(mask, place, beside) is mask
    assert needed(full[:, None, None], device, cache) is not None and needed(None, device, cache) is None
