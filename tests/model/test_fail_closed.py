"""A call of LLaVA's own classes that is not pruned as asked is an error, never an answer."""

import inspect

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM, LlamaModel
from transformers.generation import GenerationMixin
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llava import compat

from .conftest import QUESTIONS, generate, question_prompts

REFUSED = rf"not answered: .*transformers {transformers.__version__}"
PRUNED = [("divprune", 0), ("fastv", 1), ("divprune", 1)]


def renamed(forward, old, new="renamed_once_more"):
    """A forward that calls one of its arguments otherwise, and drops the one that has the name of before."""

    def other(self, *args, **kwargs):
        kwargs.pop(old, None)
        return forward(self, *args, **{old if name == new else name: value for name, value in kwargs.items()})

    signature = inspect.signature(forward)
    parameters = [part.replace(name=new) if part.name == old else part for part in signature.parameters.values()]
    other.__signature__ = signature.replace(parameters=parameters)
    return other


@pytest.fixture
def ask(load, checkpoint, images):
    """Return a function that asks a pruned model about three images."""

    def ask(pruner, layer, images=images, **options):
        options_of_pruner = {} if pruner is None else {"pruner": pruner, "visual_token_num": 5, "prune_layer": layer}
        tokenizer, model, processor, _ = load(checkpoint, **options_of_pruner)
        prompts = question_prompts(tokenizer, QUESTIONS)[: len(images)]
        return generate(model, tokenizer, processor, images, QUESTIONS[: len(images)], prompts, **options)

    return ask


@pytest.mark.parametrize("pruner, layer", PRUNED)
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}])
@pytest.mark.parametrize("old", ["inputs_embeds", compat.CACHE])
def test_a_forward_with_a_name_that_nobody_knows_is_an_error(ask, monkeypatch, pruner, layer, options, old):
    monkeypatch.setattr(LlamaForCausalLM, "forward", renamed(LlamaForCausalLM.forward, old))
    with pytest.raises(RuntimeError, match=REFUSED):
        ask(pruner, layer, **options)


@pytest.mark.parametrize("pruner, layer", PRUNED)
def test_a_body_that_does_not_read_the_prompt_it_was_given_is_an_error(ask, monkeypatch, pruner, layer):
    """One that adds what was dropped, say, or reads something else."""
    forward = LlamaModel.forward

    def longer(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.last_hidden_state = torch.cat([output.last_hidden_state[:, :1], output.last_hidden_state], dim=1)
        return output

    longer.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(LlamaModel, "forward", longer)
    with pytest.raises(RuntimeError, match=f"read \\d+ positions .*where \\d+ were to be left.*{compat.TESTED[1]}"):
        ask(pruner, layer)


@pytest.mark.parametrize("pruner, layer", PRUNED)
def test_a_generate_that_drops_the_embeddings_is_an_error(ask, monkeypatch, pruner, layer):
    generated = GenerationMixin.generate

    def without_embeddings(self, inputs_embeds=None, **kwargs):
        ids = torch.ones(inputs_embeds.shape[:2], dtype=torch.long)
        return generated(self, inputs=ids, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", without_embeddings)
    with pytest.raises(RuntimeError, match=REFUSED):
        ask(pruner, layer)
    assert ask(None, 0).shape[0] == 3  # without a pruner nothing is promised


@pytest.mark.parametrize("pruner, layer", [("fastv", 1), ("divprune", 1)])
@pytest.mark.parametrize("passed_by", [LlamaModel, LlamaDecoderLayer])
def test_modules_whose_hooks_are_passed_by_are_an_error(ask, monkeypatch, pruner, layer, passed_by):
    call = torch.nn.Module.__call__

    def without_hooks(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if isinstance(self, passed_by) else call(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", without_hooks)
    with pytest.raises(RuntimeError, match=REFUSED):
        ask(pruner, layer)


@pytest.mark.parametrize("pruner, layer", [("divprune", 0), ("divprune", 1)])
def test_a_budget_that_drops_nothing_gives_the_answers_without_a_pruner(load, checkpoint, images, pruner, layer):
    tokenizer, model, processor, _ = load(checkpoint, pruner=pruner, visual_token_num=16, prune_layer=layer)
    tokens = generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    tokenizer, plain, processor, _ = load(checkpoint)
    expected = generate(plain, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert torch.equal(tokens, expected)


def body_with(monkeypatch, change):
    """Let the body be ``change(forward, self, kwargs)``."""
    forward = LlamaModel.forward

    def other(self, *args, **kwargs):
        return change(forward, self, kwargs)

    other.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(LlamaModel, "forward", other)


def without_cache(forward, body, kwargs):
    return forward(body, **{**kwargs, compat.CACHE: None})


def other_embeddings(forward, body, kwargs):
    """Of the same length, and of no image."""
    ids = torch.ones(kwargs.pop("inputs_embeds").shape[:2], dtype=torch.long)
    return forward(body, **{**kwargs, "input_ids": ids, "inputs_embeds": None})


def longer_inside(forward, body, kwargs):
    """It returns as many states as are due, of more positions."""
    embeds = kwargs["inputs_embeds"]
    longer = {"inputs_embeds": torch.cat([embeds[:, :1], embeds], dim=1), "attention_mask": None, "position_ids": None}
    output = forward(body, **{**kwargs, **longer})
    output.last_hidden_state = output.last_hidden_state[:, 1:]
    return output


@pytest.mark.parametrize("pruner, layer", PRUNED)
@pytest.mark.parametrize("change", [without_cache, longer_inside])
def test_a_body_that_does_otherwise_than_it_says_is_an_error(ask, monkeypatch, pruner, layer, change):
    body_with(monkeypatch, change)
    with pytest.raises((RuntimeError, ValueError), match="positions|one piece"):
        ask(pruner, layer)


@pytest.mark.parametrize("pruner, layer", PRUNED)
def test_a_language_model_that_hands_on_no_embeddings_is_an_error(ask, monkeypatch, pruner, layer):
    forward = LlamaForCausalLM.forward

    def other(self, *args, **kwargs):
        return other_embeddings(forward, self, kwargs)

    other.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(LlamaForCausalLM, "forward", other)
    with pytest.raises(RuntimeError, match=REFUSED):
        ask(pruner, layer)


@pytest.mark.parametrize("pruner, layer", PRUNED)
@pytest.mark.parametrize("old", ["inputs_embeds", "attention_mask", "position_ids", compat.CACHE])
def test_a_body_with_a_name_that_nobody_knows_is_an_error(ask, monkeypatch, pruner, layer, old):
    monkeypatch.setattr(LlamaModel, "forward", renamed(LlamaModel.forward, old))
    with pytest.raises(RuntimeError, match=REFUSED):
        ask(pruner, layer)
