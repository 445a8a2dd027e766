"""One law for all families: a pruned model answers as one whose prompt was shortened by hand."""

import pytest
import torch

from llava.pruners import PRUNERS
from llava.pruning import prune, unprune

STEPS = 4


def answer(model, inputs, **kwargs):
    """Greedy tokens and the logits of each step, (B, L + STEPS) and (B, STEPS, V)."""
    out = model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True, **kwargs
    )
    return out.sequences, torch.stack(out.logits, dim=1)


def language_model_arguments(model, inputs):
    """What ``generate`` hands to the language model of an unpruned prompt."""
    seen = {}
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update({k: v for k, v in kwargs.items() if k not in seen}), with_kwargs=True
    )
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
    handle.remove()
    return seen


def kept_columns(tiny, record):
    """The columns that are left of each prompt, from the record alone."""
    ids, mask = tiny.inputs["input_ids"], tiny.inputs["attention_mask"].bool()
    places = {90, 91}
    columns = [[] for _ in ids]
    for row, prompt in enumerate(ids.tolist()):
        visual = [column for column, token in enumerate(prompt) if token in places]
        start = 0
        kept = set()
        for index, owner in enumerate(tiny.rows):
            if owner == row:
                span = visual[start : start + record.tokens_before[index]]
                kept |= {span[position] for position in record.keep[index].tolist()}
                start += record.tokens_before[index]
        assert start == len(visual)
        columns[row] = [c for c in range(len(prompt)) if mask[row, c] and (c not in visual or c in kept)]
    return columns


def by_hand(tiny, columns, compact):
    """Greedy decoding of each prompt by itself, without a cache, from the embeddings of its kept columns."""
    model = tiny.model
    seen = language_model_arguments(model, tiny.inputs)
    embed, rows = model.get_input_embeddings(), []
    for row, kept in enumerate(columns):
        embeds = seen["inputs_embeds"][row : row + 1, kept]
        positions = seen["position_ids"][..., row : row + 1, :][..., kept]
        last = seen["position_ids"][..., row : row + 1, -1:]
        if compact:
            positions = torch.arange(len(kept)).unsqueeze(0)
            last = positions[:, -1:]
        extra = deepstack(seen, row, kept)
        logits = []
        for _ in range(STEPS):
            mask = torch.ones(1, embeds.shape[1], dtype=torch.long)
            out = model.model.language_model(
                inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False, **extra
            )
            logits.append(model.lm_head(out.last_hidden_state[0, -1]))
            last = last + 1
            embeds = torch.cat([embeds, embed(logits[-1].argmax())[None, None]], dim=1)
            positions = torch.cat([positions, last], dim=-1)
            if extra:
                extra["visual_pos_masks"] = torch.nn.functional.pad(extra["visual_pos_masks"], (0, 1))
        rows.append(torch.stack(logits))
    return torch.stack(rows)


def deepstack(seen, row, kept):
    """Qwen3-VL's features that are added inside the language model, those of the kept tokens of one row."""
    if seen.get("visual_pos_masks") is None:
        return {}
    visual = seen["visual_pos_masks"]
    keep = torch.zeros_like(visual)
    keep[row, kept] = True
    levels = [level[keep[visual]] for level in seen["deepstack_visual_embeds"]]
    return {"visual_pos_masks": visual[row : row + 1, kept], "deepstack_visual_embeds": levels}


def test_keeping_everything_changes_no_bit(tiny):
    ids, logits = answer(tiny.model, tiny.inputs)
    with prune(tiny.model, "divprune", visual_token_num=1000) as record:
        pruned_ids, pruned_logits = answer(tiny.model, tiny.inputs)
    assert torch.equal(ids, pruned_ids)
    assert torch.equal(logits, pruned_logits)
    assert record.visual_tokens == record.tokens_before


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruned_prompts_answer_as_prompts_shortened_by_hand(tiny, pruner):
    with prune(tiny.model, pruner, keep_ratio=0.4) as record:
        ids, logits = answer(tiny.model, tiny.inputs)
    assert all(kept < before for kept, before in zip(record.visual_tokens, record.tokens_before, strict=True))
    assert len(record.keep) == tiny.visuals
    compact = record.settings.compact
    expected = by_hand(tiny, kept_columns(tiny, record), compact)
    torch.testing.assert_close(logits, expected, atol=3e-5, rtol=1e-4)
    assert torch.equal(ids[:, : tiny.inputs["input_ids"].shape[1]], tiny.inputs["input_ids"])


def test_nothing_is_left_behind(tiny):
    before = answer(tiny.model, tiny.inputs)
    hooks = [len(module._forward_pre_hooks) for module in tiny.model.modules()]
    attributes = {name: set(vars(module)) for name, module in tiny.model.named_modules()}
    with prune(tiny.model, "uniform", visual_token_num=2):
        answer(tiny.model, tiny.inputs)
    assert hooks == [len(module._forward_pre_hooks) for module in tiny.model.modules()]
    assert attributes == {name: set(vars(module)) for name, module in tiny.model.named_modules()}
    assert all(torch.equal(one, other) for one, other in zip(before, answer(tiny.model, tiny.inputs), strict=True))
    unprune(tiny.model)
