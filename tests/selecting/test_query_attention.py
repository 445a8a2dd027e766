"""The attention of one token, against the maps that eager attention materialises."""

import pytest
import torch

from llava.selecting.at_layer import prune_at_layer
from llava.selecting.query_attention import query_attention

from .conftest import FAMILIES, prompts

LAYER = 2


def asked(model, ids, mask, **options):
    """What ``attention`` answers inside a call of the model."""
    rows = []
    query = options.pop("query", None)

    def choose(hidden_states, attention):
        rows.append(attention() if query is None else attention(query))
        return torch.ones(hidden_states.shape[:2], dtype=torch.bool)

    with torch.no_grad(), prune_at_layer(model.model, LAYER, choose):
        model(ids, attention_mask=mask, **options)
    return rows[0]


def maps(decoder, family, ids, mask):
    """Attention of layer 1 of the same model, run eagerly, mean over heads, (B, L, L)."""
    with torch.no_grad():
        output = decoder(family, "eager")(ids, attention_mask=mask, output_attentions=True)
    return output.attentions[LAYER - 1].mean(dim=1)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_row_equals_that_of_eager_attention(decoder, family, attention, use_cache):
    ids, mask, _ = prompts()
    row = asked(decoder(family, attention), ids, mask, use_cache=use_cache)
    assert row.dtype == torch.float32
    torch.testing.assert_close(row, maps(decoder, family, ids, mask)[:, -1], rtol=0, atol=1e-6)
    assert (row[~mask.bool()] == 0).all()


@pytest.mark.parametrize("use_cache", [True, False])
def test_any_token_of_a_row_may_ask(decoder, use_cache):
    ids, mask, _ = prompts()
    query = torch.tensor([7, 10])
    row = asked(decoder(), ids, mask, query=query, use_cache=use_cache)
    expected = maps(decoder, "llama", ids, mask)[torch.arange(2), query]
    torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)
    assert (row[0, 8:] == 0).all() and (row[1, 11:] == 0).all()


def test_on_the_right_of_a_row_padding_does_not_ask(decoder):
    ids, mask, _ = prompts()
    ids, mask = ids.flip(1), mask.flip(1)
    row = asked(decoder(), ids, mask)
    expected = maps(decoder, "llama", ids, mask)[torch.arange(2), torch.tensor([12, 8])]
    torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)


def test_in_half_precision_attention_is_summed_in_single(decoder):
    ids, mask, _ = prompts()
    row = asked(decoder().half(), ids, mask)
    assert row.dtype == torch.float32
    torch.testing.assert_close(row.sum(dim=1), torch.ones(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(row, maps(decoder, "llama", ids, mask)[:, -1], rtol=0, atol=5e-3)


def test_under_autocast_scores_are_those_of_single_precision(decoder):
    ids, mask, _ = prompts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        row = asked(decoder(), ids, mask)
    torch.testing.assert_close(row.sum(dim=1), torch.ones(2), rtol=0, atol=1e-5)


def test_no_layer_comes_before_the_first(decoder):
    def choose(hidden_states, attention):
        return attention() > 0

    model = decoder()
    with prune_at_layer(model.model, 0, choose), pytest.raises(ValueError, match="before layer 0"):
        model(prompts()[0])


def test_only_the_asking_token_is_projected_to_a_query(decoder):
    model = decoder()
    ids, mask, _ = prompts()
    inputs = {"hidden_states": torch.randn(2, 13, 32)}
    inputs["position_embeddings"] = model.model.rotary_emb(inputs["hidden_states"], torch.arange(13)[None])
    shapes = []
    model.model.layers[1].self_attn.q_proj.register_forward_hook(lambda _, args, out: shapes.append(out.shape))
    query_attention(model.model, 1, inputs, mask.bool())
    assert shapes == [(2, 1, 32)]


def test_an_attention_that_is_built_otherwise_is_an_error(decoder):
    """What is computed of a layer beside it is read from its parts."""
    model, (ids, mask, _) = decoder(), prompts()
    layer = model.model.layers[1]
    layer.self_attn.qkv_proj = layer.self_attn.q_proj
    del layer.self_attn.q_proj
    inputs = {"hidden_states": model.get_input_embeddings()(ids)}
    with pytest.raises(RuntimeError, match="has no q_proj.*transformers"):
        query_attention(model.model, 1, inputs, mask.bool())
