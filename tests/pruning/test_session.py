"""What a pruned model remembers from one call to the next, and what it must not."""

import copy

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import DynamicCache

from llava import compat
from llava.pruners import Pruner
from llava.pruning import prune

TEXT = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
IMAGE = 90


def logits(model, inputs, **kwargs):
    out = model.generate(
        **inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, output_logits=True, **kwargs
    )
    return torch.stack(out.logits)


def lists(kept):
    return [positions.tolist() for positions in kept]


def without_pixels(inputs):
    return {name: value for name, value in inputs.items() if name != "pixel_values"}


def test_a_copy_of_a_pruned_model_is_pruned_by_itself(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "divprune", visual_token_num=5) as record:
        expected = logits(model, inputs)
        model(**inputs)  # what is remembered of a call with gradients does not hinder copying
        copied = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.data.normal_()
        of_the_model = record.record
        assert torch.equal(logits(copied, inputs), expected)
        assert copied._pruning.visual_tokens == [5, 5, 5]
        assert record.record is of_the_model


def test_a_call_of_the_language_model_by_itself_is_left_alone(tiny_llava):
    """Even one of the shape of the prompts before."""
    model, inputs = tiny_llava.model, tiny_llava.inputs
    embeds = torch.randn(*inputs["input_ids"].shape, 32)
    expected = model.model.language_model(inputs_embeds=embeds).last_hidden_state
    with prune(model, "divprune", visual_token_num=5):
        model(**inputs)
        assert torch.equal(model.model.language_model(inputs_embeds=embeds).last_hidden_state, expected)


def test_a_call_without_pruning_is_the_plain_model(tiny_llava):
    greedy = {"max_new_tokens": 4, "do_sample": False}
    plain = tiny_llava.model.generate(**tiny_llava.inputs, **greedy)
    with prune(tiny_llava.model, "divprune", visual_token_num=4) as record:
        assert torch.equal(tiny_llava.model.generate(**tiny_llava.inputs, **greedy, pruning=None), plain)
        assert record.keep is None


def test_arguments_may_come_without_their_names(tiny_llava):
    base, inputs = tiny_llava.model.model, tiny_llava.inputs
    with prune(tiny_llava.model, "divprune", visual_token_num=5):
        named = base(**inputs).last_hidden_state
        unnamed = base(inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]).last_hidden_state
    assert torch.equal(named, unnamed)


def test_images_beside_embeddings_are_refused(tiny_llava):
    model, inputs = tiny_llava.model, dict(tiny_llava.inputs)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    with prune(model, "divprune", visual_token_num=5), pytest.raises(NotImplementedError, match="input_ids"):
        model(**inputs)


def test_a_loop_written_by_hand_may_go_on_with_embeddings(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    token = torch.tensor([[5], [6]])
    with prune(model, "divprune", visual_token_num=5), torch.no_grad():
        first, second = (compat.cache_in(model(**inputs, use_cache=True)) for _ in range(2))
        by_ids = model(input_ids=token, **compat.cache_argument(first)).logits
        by_embeds = model(inputs_embeds=model.get_input_embeddings()(token), **compat.cache_argument(second)).logits
    assert torch.equal(by_ids, by_embeds)


def test_images_that_were_encoded_before_are_pruned_by_their_own_cues(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "vispruner", visual_token_num=5) as record:
        expected, kept = logits(model, inputs), lists(record.keep)
        encoded = model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
        model.get_image_features(pixel_values=torch.randn(3, 3, 8, 8), return_dict=True)
        again = logits(model, {**without_pixels(inputs), "mm_encoder_outputs": {"image": encoded}})
    assert lists(record.keep) == kept
    assert torch.equal(again, expected)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_images_are_known_again_when_accelerate_hands_them_on(tiny_of, num_beams):
    """Its hooks, which spread a model over devices, make every output anew."""
    tiny = tiny_of("llava")
    model, inputs = tiny.model, tiny.inputs
    with prune(model, "vispruner", visual_token_num=5):
        expected = logits(model, inputs, num_beams=num_beams)
        for module in list(model.modules()):
            add_hook_to_module(module, AlignDevicesHook("cpu", io_same_device=True))
        earlier = model.get_image_features(pixel_values=torch.randn(3, 3, 8, 8), return_dict=True)
        assert torch.equal(logits(model, inputs, num_beams=num_beams), expected)
        encoded = model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
        given = {**without_pixels(inputs), "mm_encoder_outputs": {"image": encoded}}
        assert torch.equal(logits(model, given, num_beams=num_beams), expected)
        given = {**without_pixels(inputs), "mm_encoder_outputs": {"image": earlier}}
        assert not torch.equal(logits(model, given, num_beams=num_beams), expected)


def test_other_images_of_the_same_prompts_are_chosen_from_anew(tiny_llava):
    model, inputs = tiny_llava.model, without_pixels(tiny_llava.inputs)
    with prune(model, "vispruner", visual_token_num=5) as record:
        encoded = [
            model.get_image_features(pixel_values=pixels, return_dict=True) for pixels in torch.randn(2, 3, 3, 8, 8)
        ]
        kept = []
        for output in encoded:
            logits(model, {**inputs, "mm_encoder_outputs": {"image": output}})
            kept.append(lists(record.keep))
    assert kept[0] != kept[1]


def test_images_that_were_encoded_before_the_pruning_are_refused(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    encoded = model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
    with prune(model, "uniform", visual_token_num=5), pytest.raises(NotImplementedError, match="encode them anew"):
        logits(model, {**without_pixels(inputs), "mm_encoder_outputs": {"image": encoded}})


@pytest.mark.parametrize("layer", [0, 1])
def test_a_cache_that_was_emptied_knows_nothing(tiny_llava, layer):
    model = tiny_llava.model
    expected = logits(model, TEXT)
    cache = DynamicCache(config=model.config.text_config)
    with prune(model, "divprune", visual_token_num=5, prune_layer=layer):
        logits(model, tiny_llava.inputs, **compat.cache_argument(cache))
        for kept in cache.layers:
            kept.keys, kept.values = kept.keys[:1, :, :0], kept.values[:1, :, :0]
        assert torch.equal(logits(model, TEXT, **compat.cache_argument(cache)), expected)


def test_the_record_of_a_prompt_without_images_is_empty(tiny_llava):
    with prune(tiny_llava.model, "divprune", visual_token_num=5) as record:
        logits(tiny_llava.model, tiny_llava.inputs)
        logits(tiny_llava.model, TEXT)
    assert record.keep == record.visual_tokens == record.tokens_before == []


def test_a_prompt_of_which_nothing_is_left_is_refused(tiny_llava):
    """Even beside one of which something is."""
    ids = torch.tensor([[0, 0, *[IMAGE] * 16], [1, *[IMAGE] * 16, 5]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": torch.randn(2, 3, 8, 8)}
    with prune(tiny_llava.model, "uniform", visual_token_num=0), pytest.raises(ValueError, match="at least one token"):
        logits(tiny_llava.model, inputs)


def test_columns_whose_logits_are_wanted_are_refused(tiny_llava):
    with prune(tiny_llava.model, "divprune", visual_token_num=5):
        assert tiny_llava.model(**tiny_llava.inputs, logits_to_keep=2).logits.shape[1] == 2
        with pytest.raises(NotImplementedError, match="logits_to_keep"):
            tiny_llava.model(**tiny_llava.inputs, logits_to_keep=torch.tensor([3, 4]))


@pytest.mark.parametrize("pruner", ["divprune", "trim"])
def test_gradients_reach_the_text_of_a_prompt(tiny_llava, pruner):
    """Also beside tokens that are merged, through which none pass."""
    model = tiny_llava.model
    with prune(model, pruner, visual_token_num=5):
        model(**tiny_llava.inputs).logits.sum().backward()
    grad = model.get_input_embeddings().weight.grad
    assert grad[[1, 5, 6, 7, 8, 9]].abs().sum(dim=1).gt(0).all()


class First(Pruner):
    """Keeps the first tokens."""

    needs = frozenset({"embeds"})

    def select(self, cues, budget):
        return torch.arange(budget).repeat(cues.shape[0], 1)


def test_dropped_tokens_that_are_not_numbers_leave_no_trace(tiny_llava):
    """Not even in the padding of a prompt that is shorter than another."""
    model, image = tiny_llava.model, [IMAGE] * 16
    ids = torch.tensor([[1, *image, 5, 6, 7], [0, 0, 1, *image, 5]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": torch.randn(2, 3, 8, 8)}

    def spoil(module, args, output):
        output = output.clone()
        output[1, 4:] = torch.nan
        return output

    with prune(model, First(visual_token_num=4)):
        expected = logits(model, inputs)
        handle = model.model.multi_modal_projector.register_forward_hook(spoil)
        assert torch.equal(logits(model, inputs), expected)
        handle.remove()


@pytest.mark.parametrize("layer", [0, 1])
def test_images_behind_a_pruned_prompt_are_refused(tiny_llava, layer):
    """Without a mask, which would tell that the cache is shorter than the prompt was."""
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "divprune", visual_token_num=5, prune_layer=layer):
        cache = compat.cache_in(model(**inputs, use_cache=True))
        with pytest.raises(NotImplementedError, match="images behind a filled cache"):
            model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"], **compat.cache_argument(cache))


def test_a_layer_that_a_call_names_gives_the_attention_too(tiny_llava):
    """As if the config named it."""
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "cls_topk", visual_token_num=5) as record:
        model(**inputs, vision_feature_layer=1)
        named = [kept.tolist() for kept in record.keep]
        model(**inputs)
        default = [kept.tolist() for kept in record.keep]
        model.config.vision_feature_layer = 1
        model(**inputs)
        configured = [kept.tolist() for kept in record.keep]
    assert named == configured != default
