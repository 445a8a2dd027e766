"""Later layers that see a part of the prompt, against indexing by hand, with every kind of decoding."""

import copy
import inspect
import pickle

import pytest
import torch
from transformers import DynamicCache, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, Qwen3VLTextConfig, Qwen3VLTextModel

from llava import compat
from llava.selecting.at_layer import CHOOSE, prune_at_layer

from .conftest import FAMILIES, SIZES, prompts, pruned_logits

LAYER, STEPS = 2, 5

CHECKPOINTING = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")


def keeping(keep):
    """A ``choose`` that keeps what is said of the prompt, for every beam, and all that follows."""

    def choose(hidden_states, attention):
        batch, length = hidden_states.shape[:2]
        beams = keep.repeat_interleave(batch // len(keep), dim=0)
        return torch.nn.functional.pad(beams, (0, length - keep.shape[1]), value=True)

    return choose


def generate(model, ids, mask, **options):
    options = {"do_sample": False, "max_new_tokens": STEPS, "pad_token_id": 0, **options}
    return model.generate(ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **options)


def assert_every_step_is_right(model, layer, ids, mask, keep, output):
    for row, (real, kept) in enumerate(zip(mask.bool(), keep, strict=True)):
        new = output.sequences[row, ids.shape[1] :]
        for step, logits in enumerate(output.logits):
            sequence = torch.cat([ids[row][real], new[:step]])
            all_kept = torch.cat([kept[real], torch.ones(step, dtype=torch.bool)])
            expected = pruned_logits(model, sequence, all_kept, layer)
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [1, 2])
@torch.no_grad()
def test_every_step_equals_sequences_indexed_by_hand(decoder, family, attention, rows):
    model = decoder(family, attention)
    ids, mask, keep = (part[:rows] for part in prompts())
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        output = generate(model, ids, mask)
    assert_every_step_is_right(model, LAYER, ids, mask, keep, output)


@pytest.mark.parametrize("layer", [0, 1, 3])
@torch.no_grad()
def test_any_layer_may_be_the_first_to_see_less(decoder, layer):
    model = decoder()
    ids, mask, keep = prompts(seed=1)
    with prune_at_layer(model.model, layer, keeping(keep)):
        output = generate(model, ids, mask)
    assert_every_step_is_right(model, layer, ids, mask, keep, output)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [1, 2])
def test_keeping_all_changes_no_bit(decoder, family, attention, rows):
    model = decoder(family, attention)
    ids, mask, _ = (part[:rows] for part in prompts())
    plain = generate(model, ids, mask)
    with prune_at_layer(model.model, LAYER, keeping(mask.bool())):
        pruned = generate(model, ids, mask)
    assert all(torch.equal(one, other) for one, other in zip(plain.logits, pruned.logits, strict=True))


@torch.no_grad()
def test_pruning_at_layer_zero_is_leaving_tokens_out_at_their_positions(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, 0, keeping(keep)):
        pruned = model(ids, position_ids=torch.arange(13)[None]).logits
    positions = keep[0].nonzero().T
    left_out = model(ids[:, keep[0]], position_ids=positions, attention_mask=torch.ones_like(positions)).logits
    torch.testing.assert_close(pruned, left_out, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_row_of_a_batch_is_answered_as_if_alone(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        together = generate(model, ids, mask).logits
    for row, real in enumerate(mask.bool()):
        with prune_at_layer(model.model, LAYER, keeping(keep[row : row + 1, real])):
            alone = generate(model, ids[row : row + 1, real], mask[row : row + 1, real]).logits
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row], other[0], rtol=0, atol=5e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_without_a_cache_the_same_is_generated(decoder, attention):
    model = decoder("llama", attention)
    ids, mask, keep = prompts()
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        output = generate(model, ids, mask, use_cache=False)
    assert_every_step_is_right(model, LAYER, ids, mask, keep, output)


def scores_of_beams(model, ids, mask, keep, beams):
    """The best continuation of one prompt among those that a beam search without a cache or hooks sees."""
    real = mask[0].bool()
    candidates = [(0.0, [])]
    for step in range(STEPS):
        grown = []
        for score, new in candidates:
            sequence = torch.cat([ids[0][real], torch.tensor(new, dtype=torch.long)])
            kept = torch.cat([keep[0][real], torch.ones(step, dtype=torch.bool)])
            logs = pruned_logits(model, sequence, kept, LAYER).log_softmax(dim=-1)
            grown += [(score + log.item(), [*new, token]) for token, log in enumerate(logs)]
        candidates = sorted(grown, reverse=True)[:beams]
    return candidates[0][1]


@torch.no_grad()
def test_beams_of_several_rows_equal_a_search_by_hand(decoder):
    model = decoder()
    ids, mask, keep = prompts(seed=2)
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        found = generate(model, ids, mask, num_beams=3).sequences[:, 13:]
    for row in range(2):
        parts = (part[row : row + 1] for part in (ids, mask, keep))
        assert found[row].tolist() == scores_of_beams(model, *parts, beams=3)


@torch.no_grad()
def test_samples_are_drawn_from_the_right_logits(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    torch.manual_seed(5)
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        output = generate(model, ids, mask, do_sample=True, num_return_sequences=2)
    twice = [part.repeat_interleave(2, dim=0) for part in (ids, mask, keep)]
    assert_every_step_is_right(model, LAYER, *twice, output)


MULTIMODAL = {
    "qwen2.5-vl": (Qwen2_5_VLTextModel, Qwen2_5_VLTextConfig, {"mrope_section": [1, 1, 2]}),
    "qwen3-vl": (Qwen3VLTextModel, Qwen3VLTextConfig, {"mrope_section": [2, 1, 1], "mrope_interleaved": True}),
}


@pytest.mark.parametrize("family", MULTIMODAL)
@torch.no_grad()
def test_positions_of_several_axes_stay_with_their_tokens(family):
    body_class, config_class, rope = MULTIMODAL[family]
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4, **rope}
    body = body_class(config_class(**SIZES | {"head_dim": 8}, rope_parameters=rope)).eval()
    embeds, keep = torch.randn(2, 13, 32), prompts(lengths=(13, 13))[2]
    axes = torch.randint(0, 9, (3, 2, 13)).cumsum(dim=-1)  # time, height, width; as if of images
    positions = torch.cat([torch.arange(13).expand(1, 2, -1), axes])
    rows = []

    def choose(hidden_states, attention):
        rows.append(attention())
        return keep

    with prune_at_layer(body, LAYER, choose):
        output = body(inputs_embeds=embeds, position_ids=positions)
        more = body(
            inputs_embeds=embeds[:, :1],
            position_ids=positions[..., -1:] + 1,
            **compat.cache_argument(compat.cache_in(output)),
        )
    body.set_attn_implementation("eager")
    maps = body(inputs_embeds=embeds, position_ids=positions, output_attentions=True).attentions
    torch.testing.assert_close(rows[0], maps[LAYER - 1].mean(dim=1)[:, -1], rtol=0, atol=1e-6)
    for row in range(2):
        hidden = torch.cat([embeds[row], embeds[row, :1]])[None]
        where = torch.cat([axes[:, row], axes[:, row, -1:] + 1], dim=1)[:, None]
        rotary, kept = body.rotary_emb(hidden, where), torch.cat([keep[row], torch.tensor([True])])
        for index, block in enumerate(body.layers):
            if index == LAYER:
                hidden, rotary = hidden[:, kept], tuple(part[:, kept] for part in rotary)
            later = torch.ones(hidden.shape[1], hidden.shape[1]).triu(1) * torch.finfo(torch.float32).min
            hidden = block(hidden, attention_mask=later[None, None], position_embeddings=rotary)
        expected = body.norm(hidden)[0]
        count = int(keep[row].sum())
        torch.testing.assert_close(output.last_hidden_state[row, -count:], expected[:-1], rtol=0, atol=5e-5)
        torch.testing.assert_close(more.last_hidden_state[row, 0], expected[-1], rtol=0, atol=5e-5)


@torch.no_grad()
def test_two_generations_may_take_turns(decoder):
    model = decoder()
    first, second = prompts(seed=3), prompts(seed=4, lengths=(11, 11))
    caches, expected = [], []
    with prune_at_layer(model.model, LAYER) as hooks:
        for ids, mask, keep in (first, second):
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
            choose = {CHOOSE: keeping(keep)}
            caches.append(compat.cache_in(model(ids, attention_mask=mask, position_ids=positions, **choose)))
        for _ in range(2):  # one token each in turn
            for (ids, mask, _), cache in zip((first, second), caches, strict=True):
                grown = cache.get_seq_length() - ids.shape[1] + 1
                longer = torch.cat([mask, torch.ones(2, grown, dtype=torch.long)], dim=1)
                positions = longer.sum(dim=1, keepdim=True) - 1
                token = torch.full((2, 1), 7)
                output = model(token, attention_mask=longer, position_ids=positions, **compat.cache_argument(cache))
                expected.append((ids, mask, grown, output.logits[:, -1]))
        hooks.remove()
    keeps = [first[2], second[2]] * 2
    for (ids, mask, grown, logits), keep in zip(expected, keeps, strict=True):
        for row, real in enumerate(mask.bool()):
            sequence = torch.cat([ids[row][real], torch.full((grown,), 7)])
            kept = torch.cat([keep[row][real], torch.ones(grown, dtype=torch.bool)])
            torch.testing.assert_close(logits[row], pruned_logits(model, sequence, kept, LAYER), rtol=0, atol=5e-5)


@torch.no_grad()
def test_a_copied_cache_goes_on_where_the_original_was(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, LAYER) as hooks:
        cache = compat.cache_in(model(ids, **{CHOOSE: keeping(keep)}))
        twin = copy.deepcopy(cache)
        one, other = (model(torch.tensor([[5, 6]]), **compat.cache_argument(each)).logits for each in (cache, twin))
        hooks.remove()
    sequence, kept = torch.cat([ids[0], torch.tensor([5, 6])]), torch.cat([keep[0], torch.ones(2, dtype=torch.bool)])
    assert torch.equal(one, other)
    torch.testing.assert_close(one[0, -1], pruned_logits(model, sequence, kept, LAYER), rtol=0, atol=5e-5)


@torch.no_grad()
def test_a_cache_cut_by_the_same_number_in_every_layer_goes_on(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, LAYER) as hooks:
        cache = compat.cache_in(model(ids, **{CHOOSE: keeping(keep)}))
        mask = torch.tensor([[1] * 14 + [0, 0]])
        model(torch.tensor([[5, 6, 7]]), attention_mask=mask, **compat.cache_argument(cache))
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :-2], layer.values[:, :, :-2]
        logits = model(torch.tensor([[8]]), **compat.cache_argument(cache)).logits
        hooks.remove()
    sequence, kept = torch.cat([ids[0], torch.tensor([5, 8])]), torch.cat([keep[0], torch.ones(2, dtype=torch.bool)])
    torch.testing.assert_close(logits[0, -1], pruned_logits(model, sequence, kept, LAYER), rtol=0, atol=5e-5)


@torch.no_grad()
def test_an_emptied_cache_takes_a_new_prompt(decoder):
    model = decoder()
    cache = DynamicCache(config=model.config)
    for seed in (0, 1):
        ids, _, keep = (part[:1] for part in prompts(seed=seed))
        with prune_at_layer(model.model, LAYER, keeping(keep)):
            logits = model(ids, **compat.cache_argument(cache)).logits
        torch.testing.assert_close(logits[0, -1], pruned_logits(model, ids[0], keep[0], LAYER), rtol=0, atol=5e-5)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :0], layer.values[:, :, :0]


@torch.no_grad()
def test_prompts_padded_on_the_right_stay_so(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    left = mask.bool()
    right = [
        torch.stack([row[real.argsort(descending=True, stable=True)] for row, real in zip(part, left, strict=True)])
        for part in (ids, mask, keep)
    ]
    with prune_at_layer(model.model, LAYER, keeping(right[2])):
        logits = model(right[0], attention_mask=right[1]).logits
    for row, real in enumerate(left):
        last = int(keep[row].sum()) - 1
        expected = pruned_logits(model, ids[row][real], keep[row][real], LAYER)
        torch.testing.assert_close(logits[row, last], expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_sequences_indexed_by_hand(decoder, checkpointing):
    model = decoder().train()
    if checkpointing:
        newer = getattr(model, "activation_checkpointing_enable", None)  # the older name is deprecated where it is
        (newer or model.gradient_checkpointing_enable)(**{CHECKPOINTING[newer is None]: {"use_reentrant": False}})
    ids, _, keep = (part[:1] for part in prompts())
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        model(inputs_embeds=embeds, use_cache=False).logits[0, -1, 3].backward()
    hidden = model.get_input_embeddings()(ids).detach().requires_grad_()
    plain = decoder()
    plain.model.embed_tokens.forward = lambda _: hidden
    pruned_logits(plain, ids[0], keep[0], LAYER)[3].backward()
    torch.testing.assert_close(embeds.grad, hidden.grad, rtol=0, atol=5e-5)
    assert embeds.grad.abs().sum(dim=-1).gt(0).all()


def test_nothing_is_left_behind(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    plain = generate(model, ids, mask)
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        assert not torch.equal(generate(model, ids, mask).logits[0], plain.logits[0])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(generate(model, ids, mask).logits[-1], plain.logits[-1])


def test_another_model_of_the_class_is_left_alone(decoder):
    one, other = decoder(), decoder()
    ids, mask, keep = prompts()
    plain = generate(other, ids, mask)
    with prune_at_layer(one.model, LAYER, keeping(keep)):
        assert torch.equal(generate(other, ids, mask).logits[-1], plain.logits[-1])


@torch.no_grad()
def test_a_model_with_hooks_can_be_copied_and_pickled(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, LAYER):
        expected = model(ids, **{CHOOSE: keeping(keep)}).logits
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(ids, **{CHOOSE: keeping(keep)}).logits, expected)


def test_the_layers_before_have_full_caches_and_the_others_short_ones(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        cache = compat.cache_in(model(ids))
    short = int(keep.sum())
    assert [cache.get_seq_length(layer) for layer in range(4)] == [13, 13, short, short]


def test_a_static_cache_is_refused(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    with (
        prune_at_layer(model.model, LAYER, keeping(keep)),
        pytest.raises(ValueError, match="static"),
    ):
        generate(model, ids, mask, cache_implementation="static", disable_compile=True)


def test_a_cache_filled_without_pruning_is_refused(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    cache = compat.cache_in(model(ids))
    with prune_at_layer(model.model, LAYER, keeping(keep)), pytest.raises(ValueError, match="in one piece"):
        model(ids, **compat.cache_argument(cache))


def test_a_cache_whose_layers_were_cut_to_one_length_is_refused(decoder):
    model = decoder()
    ids, _, keep = (part[:1] for part in prompts())
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        cache = compat.cache_in(model(ids))
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :5], layer.values[:, :, :5]
        with pytest.raises(RuntimeError, match="no longer fit"):
            model(torch.tensor([[5]]), **compat.cache_argument(cache))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.ones(1, 12, dtype=torch.bool), r"\(1, 13\) tokens came as \(1, 12\)"),
        (torch.ones(1, 13), "float32"),
        (torch.zeros(1, 13, dtype=torch.bool), "at least one"),
    ],
)
def test_an_answer_that_cannot_be_kept_is_an_error(decoder, keep, message):
    model = decoder()
    ids = prompts()[0][:1]
    with prune_at_layer(model.model, LAYER, lambda *_: keep), pytest.raises(ValueError, match=message):
        model(ids)


@pytest.mark.parametrize("layer", [-1, 4, 1.0, True])
def test_a_layer_that_is_not_there_is_an_error(decoder, layer):
    with pytest.raises(ValueError, match="from 0 to 3"):
        prune_at_layer(decoder().model, layer)


def test_a_module_without_layers_is_an_error():
    with pytest.raises(TypeError, match="Linear has no decoder layers"):
        prune_at_layer(torch.nn.Linear(2, 2), 0)


def test_padding_is_dropped_whatever_is_answered(decoder):
    model = decoder()
    ids, mask, keep = prompts()
    with prune_at_layer(model.model, LAYER, keeping(keep | ~mask.bool())):
        careless = generate(model, ids, mask)
    assert_every_step_is_right(model, LAYER, ids, mask, keep, careless)


def handing(body, change):
    """Let a body call its layers with what ``change(args, kwargs)`` makes of their arguments."""
    forward = type(body).forward

    class Between:
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, *args, **kwargs):
            args, kwargs = change(args, kwargs)
            return self.layer(*args, **kwargs)

        def __getattr__(self, name):
            return getattr(self.layer, name)

    def other(self, *args, **kwargs):
        layers = self._modules.pop("layers")
        object.__setattr__(self, "layers", [Between(layer) for layer in layers])
        try:
            return forward(self, *args, **kwargs)
        finally:
            object.__delattr__(self, "layers")
            self._modules["layers"] = layers

    other.__signature__ = inspect.signature(forward)
    body.__class__ = type("Other", (type(body),), {"forward": other})


def renaming(body, old):
    """Let layers call one of their arguments otherwise, and their body follow."""

    def forward_of(forward):
        def other(self, *args, **kwargs):
            kwargs.pop(old, None)
            return forward(self, *args, **{old if name == "other" else name: value for name, value in kwargs.items()})

        parts = list(inspect.signature(forward).parameters.values())
        other.__signature__ = inspect.Signature(
            [part.replace(name="other") if part.name == old else part for part in parts]
        )
        return other

    for layer in body.layers:
        layer.__class__ = type("Other", (type(layer),), {"forward": forward_of(type(layer).forward)})
    if old == "hidden_states":
        handing(body, lambda args, kwargs: ((), {"other": args[0], **kwargs}))
    else:
        handing(body, lambda args, kwargs: (args, {"other" if name == old else name: kwargs[name] for name in kwargs}))


@pytest.mark.parametrize("old", ["hidden_states", "attention_mask", "position_embeddings", compat.CACHE])
def test_layers_that_call_an_argument_otherwise_are_an_error_where_something_is_dropped(decoder, old):
    model, (ids, _, keep) = decoder(), (part[:1] for part in prompts())
    expected = model(ids).logits
    renaming(model.model, old)
    assert torch.equal(model(ids).logits, expected)
    with prune_at_layer(model.model, LAYER) as hooks:
        assert torch.equal(model(ids).logits, expected)
        hooks.choose = keeping(keep)
        with pytest.raises(RuntimeError, match=f"takes no {old}.*transformers"):
            model(ids)


@pytest.mark.parametrize(
    "change",
    [
        lambda args, kwargs: ((args[0], kwargs.pop("attention_mask")), kwargs),
        lambda args, kwargs: ((), {"hidden_states": args[0], **kwargs}),
    ],
)
@torch.no_grad()
def test_layers_may_be_called_by_place_or_by_name(decoder, change):
    model, (ids, mask, keep) = decoder(), prompts()
    handing(model.model, change)
    with prune_at_layer(model.model, LAYER, keeping(keep)):
        output = generate(model, ids, mask)
    assert_every_step_is_right(model, LAYER, ids, mask, keep, output)


def test_layers_that_read_another_length_than_their_body_are_an_error(decoder):
    model, (ids, _, keep) = decoder(), (part[:1] for part in prompts())

    forward = type(model.model).forward

    def longer(self, input_ids=None, **kwargs):
        return forward(self, input_ids=torch.cat([input_ids[:, :1], input_ids], dim=1), **kwargs)

    longer.__signature__ = inspect.signature(forward)
    model.model.__class__ = type("Other", (type(model.model),), {"forward": longer})
    with prune_at_layer(model.model, LAYER, keeping(keep)), pytest.raises(RuntimeError, match="of a prompt of 13"):
        model(ids, use_cache=False)


def test_a_prompt_that_is_not_pruned_needs_no_hook(decoder):
    """A body that hands its layers no keyword arguments of others, asked about nothing to drop."""
    model, (ids, _, keep) = decoder(), (part[:1] for part in prompts())
    expected = model(ids).logits
    known = ("attention_mask", "position_ids", "position_embeddings", "use_cache", compat.CACHE)
    handing(model.model, lambda args, kwargs: (args, {name: kwargs[name] for name in known if name in kwargs}))
    with prune_at_layer(model.model, LAYER):
        assert torch.equal(model(ids).logits, expected)
        with pytest.raises(RuntimeError, match="not answered"):
            model(ids, **{CHOOSE: keeping(keep)})
