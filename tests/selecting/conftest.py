"""Tiny decoders of several families, and what one that is pruned in the middle has to compute."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # larger than default, so that answers differ from each other
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "mistral with a window": (MistralForCausalLM, MistralConfig, {"sliding_window": 6}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2 with a window": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 3},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
}


@pytest.fixture
def decoder():
    """Return a function that makes a decoder: ``decoder("llama", "sdpa")``."""

    def make(family="llama", attention="sdpa"):
        model_class, config_class, changes = FAMILIES[family]
        torch.manual_seed(0)
        return model_class(config_class(**SIZES, **changes, attn_implementation=attention)).eval()

    return make


def prompts(seed=0, lengths=(13, 9)):
    """Left-padded prompts (B, L), their attention mask, and which tokens to keep: most of the text, few in between."""
    generator = torch.Generator().manual_seed(seed)
    length = max(lengths)
    ids = torch.randint(2, 99, (len(lengths), length), generator=generator)
    mask = torch.stack([torch.arange(length) >= length - own for own in lengths])
    keep = torch.rand(ids.shape, generator=generator) < 0.5
    keep[:, -2:] = True
    return ids * mask, mask.long(), keep & mask


def pruned_logits(model, ids, keep, layer):
    """Logits (V,) after one sequence without padding, of which layers from ``layer`` on see what is in ``keep``.

    No cache, no hooks: sequences are indexed by hand and every mask is written out.
    """
    body, config = model.model, model.config
    hidden = body.embed_tokens(ids[None])
    rotary = body.rotary_emb(hidden, torch.arange(len(ids))[None])
    for index, block in enumerate(body.layers):
        if index == layer:
            hidden, rotary = hidden[:, keep], tuple(part[:, keep] for part in rotary)
        length = hidden.shape[1]
        back = torch.arange(length)[:, None] - torch.arange(length)
        kinds = getattr(config, "layer_types", None)
        slides = kinds[index] == "sliding_attention" if kinds else getattr(config, "sliding_window", None) is not None
        seen = (back >= 0) & (back < (config.sliding_window if slides else length))
        mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min)
        hidden = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
    return model.lm_head(body.norm(hidden))[0, -1]
