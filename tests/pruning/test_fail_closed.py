"""A call that is not pruned as asked is an error, never an answer.

The stand-ins are what a later Transformers may be: the cache or the embeddings under another name, an encoder or a
language model that is reached another way. Each answers without pruning, and without a word, unless it is noticed.
"""

import inspect
import types

import pytest
import torch
import transformers

from llava import compat
from llava.pruning import prune

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
REFUSED = rf"not answered: .*transformers {transformers.__version__}"


def renamed(forward, old, new):
    """The forward of a class that calls one of its arguments otherwise."""

    def other(self, *args, **kwargs):
        return forward(self, *args, **{old if name == new else name: value for name, value in kwargs.items()})

    signature = inspect.signature(forward)
    parameters = [part.replace(name=new) if part.name == old else part for part in signature.parameters.values()]
    other.__signature__ = signature.replace(parameters=parameters)
    return other


def calling(forward, old, new):
    """The forward of a class that calls its language model with another name."""

    def other(self, *args, **kwargs):
        class Named:
            """Stands for the language model while its owner runs."""

            def __init__(self, module):
                self.module = module

            def __call__(self, *inner_args, **inner_kwargs):
                return self.module(*inner_args, **{new if n == old else n: v for n, v in inner_kwargs.items()})

            def __getattr__(self, name):
                return getattr(self.module, name)

        module = self._modules["language_model"]
        del self._modules["language_model"]
        object.__setattr__(self, "language_model", Named(module))
        try:
            return forward(self, *args, **kwargs)
        finally:
            object.__delattr__(self, "language_model")
            self._modules["language_model"] = module

    other.__signature__ = inspect.signature(forward)
    return other


@pytest.fixture(params=["inputs_embeds", compat.CACHE])
def renaming(request, tiny_llava, monkeypatch):
    """A LLaVA whose language model takes an argument under a name that nobody knows."""
    old, new = request.param, "renamed_once_more"
    base = tiny_llava.model.model
    language = type(base.language_model)
    stand_in = type(language.__name__, (language,), {"forward": renamed(language.forward, old, new)})
    base.language_model.__class__ = stand_in
    whole = type(base)
    base.__class__ = type(whole.__name__, (whole,), {"forward": calling(whole.forward, old, new)})
    return tiny_llava


def test_the_stand_in_answers_without_a_pruner(renaming, tiny_of):
    expected = tiny_of("llava").model.generate(**renaming.inputs, **GREEDY)
    assert torch.equal(renaming.model.generate(**renaming.inputs, **GREEDY), expected)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}, {"prompt_lookup_num_tokens": 2}])
def test_a_name_that_nobody_knows_is_an_error(renaming, layer, options):
    inputs = renaming.inputs
    if "prompt_lookup_num_tokens" in options:
        inputs = {"input_ids": inputs["input_ids"][:1], "pixel_values": inputs["pixel_values"][:2]}
    with prune(renaming.model, "divprune", visual_token_num=5, prune_layer=layer):
        with pytest.raises(RuntimeError, match=REFUSED):
            renaming.model.generate(**inputs, **GREEDY, **options)
        with pytest.raises(RuntimeError, match=REFUSED):
            renaming.model(**inputs)


def test_the_error_says_what_was_expected(renaming):
    with prune(renaming.model, "divprune", visual_token_num=5), pytest.raises(RuntimeError) as told:
        renaming.model(**renaming.inputs)
    assert "takes no" in str(told.value) and " to ".join(compat.TESTED) in str(told.value)


def test_a_language_model_whose_hooks_are_passed_by_is_an_error(tiny_llava, monkeypatch):
    base = tiny_llava.model.model
    call = torch.nn.Module.__call__

    def without_hooks(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if self is base.language_model else call(self, *args, **kwargs)

    with prune(tiny_llava.model, "divprune", visual_token_num=5):
        monkeypatch.setattr(torch.nn.Module, "__call__", without_hooks)
        with pytest.raises(RuntimeError, match="did not call its language model as a module"):
            tiny_llava.model(**tiny_llava.inputs)


def test_a_model_whose_hooks_are_passed_by_is_an_error_of_generate(tiny_llava, monkeypatch):
    passed_by = tiny_llava.model.model
    call = torch.nn.Module.__call__

    def without_hooks(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if self is passed_by else call(self, *args, **kwargs)

    with prune(tiny_llava.model, "divprune", visual_token_num=5):
        monkeypatch.setattr(torch.nn.Module, "__call__", without_hooks)
        with pytest.raises(RuntimeError, match=REFUSED):
            tiny_llava.model.generate(**tiny_llava.inputs, **GREEDY)


def test_an_encoder_that_is_reached_another_way_is_an_error(tiny_llava):
    model = tiny_llava.model
    encode = type(model.model).get_image_features

    class Other(type(model.model)):
        def forward(self, *args, **kwargs):
            mine = vars(self).pop("get_image_features")
            self.get_image_features = types.MethodType(encode, self)
            try:
                return super().forward(*args, **kwargs)
            finally:
                self.get_image_features = mine

    Other.forward.__signature__ = inspect.signature(type(model.model).forward)
    model.model.__class__ = Other
    with prune(model, "divprune", visual_token_num=5), pytest.raises(RuntimeError, match="get_image_features"):
        model(**tiny_llava.inputs)


def test_layers_that_are_not_pruned_are_an_error(tiny_llava, monkeypatch):
    layers = tiny_llava.model.model.language_model.layers[1:]
    call = torch.nn.Module.__call__

    def without_hooks(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if self in list(layers) else call(self, *args, **kwargs)

    with prune(tiny_llava.model, "divprune", visual_token_num=5, prune_layer=1):
        monkeypatch.setattr(torch.nn.Module, "__call__", without_hooks)
        with pytest.raises(RuntimeError, match="did not c"):
            tiny_llava.model.generate(**tiny_llava.inputs, **GREEDY)


@pytest.mark.parametrize("layer", [0, 1])
def test_what_has_nothing_to_prune_is_answered(renaming, layer):
    """Prompts without images, whatever the names."""
    text = {"input_ids": torch.tensor([[1, 5, 6, 7]])}
    expected = renaming.model.generate(**text, **GREEDY)
    with prune(renaming.model, "divprune", visual_token_num=5, prune_layer=layer):
        assert torch.equal(renaming.model.generate(**text, **GREEDY), expected)


@pytest.mark.parametrize(
    "pruner, layer, compiled_first",
    [
        ("vispruner", 0, True),
        pytest.param("vispruner", 0, False, marks=pytest.mark.slow),
        pytest.param("fastv", 1, True, marks=pytest.mark.slow),
        pytest.param("fastv", 1, False, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_model_is_pruned_or_says_that_it_is_not(tiny_llava, pruner, layer, compiled_first):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, pruner, visual_token_num=5, prune_layer=layer) as record, torch.no_grad():
        expected, kept = model(**inputs).logits, record.visual_tokens
    try:
        if compiled_first:
            model.compile(backend="eager")
            model(**inputs)
        with prune(model, pruner, visual_token_num=5, prune_layer=layer) as record, torch.no_grad():
            if not compiled_first:
                model.compile(backend="eager")
            try:
                logits = model(**inputs).logits
            except RuntimeError as error:
                assert compiled_first and "compiled anew" in str(error)
            else:
                assert torch.equal(logits, expected) and record.visual_tokens == kept
    finally:
        torch._dynamo.reset()


def between(owner, name, change):
    """Let ``owner`` call its child of that name through ``change(child, args, kwargs)`` while it runs itself."""
    forward = type(owner).forward

    def other(self, *args, **kwargs):
        child = self._modules.pop(name)

        class Between:
            def __call__(_, *inner, **named):  # noqa: N805
                return change(child, inner, named)

            def __getattr__(_, attribute):  # noqa: N805
                return getattr(child, attribute)

        object.__setattr__(self, name, Between())
        try:
            return forward(self, *args, **kwargs)
        finally:
            object.__delattr__(self, name)
            self._modules[name] = child

    other.__signature__ = inspect.signature(forward)
    owner.__class__ = type(type(owner).__name__, (type(owner),), {"forward": other})


def another_tower(model):
    tower = type(model.model.vision_tower)(model.config.vision_config)
    model.model.vision_tower = tower


def another_base(model):
    model.model = type(model.model)(model.config)


def a_base_without_hooks(model):
    between(model, "model", lambda child, args, kwargs: child.forward(*args, **kwargs))


def a_second_call_without_hooks(model):
    def twice(child, args, kwargs):
        child(*args, **{**kwargs, compat.CACHE: None, "use_cache": False})
        return child.forward(*args, **kwargs)

    between(model.model, "language_model", twice)


def states_of_another_name(model):
    class Output:
        def __init__(self, output):
            self.output = output

    language_model = model.model.language_model
    forward = type(language_model).forward

    def other(self, *args, **kwargs):
        return Output(forward(self, *args, **kwargs))

    other.__signature__ = inspect.signature(forward)
    language_model.__class__ = type("Other", (type(language_model),), {"forward": other})
    between(model.model, "language_model", lambda child, args, kwargs: child(*args, **kwargs).output)


def masks_by_kind(model):
    mask = "attention_mask"
    between(
        model.model,
        "language_model",
        lambda child, args, kwargs: child(*args, **{**kwargs, mask: {"full_attention": kwargs.get(mask)}}),
    )


def a_language_model_that_reads_what_was_dropped(model):
    """It has the embeddings from elsewhere, and returns as many states as it was given embeddings."""
    stash = {}
    language_model = model.model.language_model
    forward = type(language_model).forward

    def other(self, *args, **kwargs):
        length = kwargs["inputs_embeds"].shape[1]
        output = forward(self, *args, **{**kwargs, **stash})
        output.last_hidden_state = output.last_hidden_state[:, -length:]
        return output

    def keep(child, args, kwargs):
        stash.update({name: kwargs.get(name) for name in ("inputs_embeds", "attention_mask", "position_ids")})
        return child(*args, **kwargs)

    other.__signature__ = inspect.signature(forward)
    language_model.__class__ = type("Other", (type(language_model),), {"forward": other})
    between(model.model, "language_model", keep)


STAND_INS = [
    another_tower,
    another_base,
    a_base_without_hooks,
    a_second_call_without_hooks,
    states_of_another_name,
    masks_by_kind,
    a_language_model_that_reads_what_was_dropped,
]


@pytest.mark.parametrize("stand_in", STAND_INS)
def test_what_is_reached_another_way_since_it_is_pruned_is_an_error(tiny_llava, stand_in):
    with prune(tiny_llava.model, "vispruner", visual_token_num=5):
        stand_in(tiny_llava.model)
        with pytest.raises(RuntimeError, match=REFUSED):
            tiny_llava.model.eval()(**tiny_llava.inputs, use_cache=False)


def pixels_renamed(model):
    base = model.model
    forward = type(base).forward
    base.__class__ = type("Other", (type(base),), {"forward": renamed(forward, "pixel_values", "pixels")})
    between(model, "model", lambda child, args, kwargs: child(*args, pixels=kwargs.pop("pixel_values"), **kwargs))


@pytest.mark.parametrize("pruner, layer", [("vispruner", 0), ("fastv", 1)])
@torch.no_grad()
def test_images_of_another_name_are_pruned_as_they_are_encoded(tiny_llava, tiny_of, pruner, layer):
    options = {"visual_token_num": 5, "prune_layer": layer}
    with prune(tiny_of("llava").model, pruner, **options) as record:
        expected = record.model(**tiny_llava.inputs).logits
    pixels_renamed(tiny_llava.model)
    with prune(tiny_llava.model, pruner, **options) as record:
        assert torch.equal(tiny_llava.model(**tiny_llava.inputs).logits, expected)
    assert record.visual_tokens == [5, 5, 5]


def test_images_and_their_encoder_of_another_name_are_an_error(tiny_llava):
    encode = type(tiny_llava.model.model).get_image_features

    def unheard(child, args, kwargs):
        mine = vars(child).pop("get_image_features")
        child.get_image_features = types.MethodType(encode, child)
        try:
            return child(*args, pixels=kwargs.pop("pixel_values"), **kwargs)
        finally:
            child.get_image_features = mine

    base = tiny_llava.model.model
    base.__class__ = type("Other", (type(base),), {"forward": renamed(type(base).forward, "pixel_values", "pixels")})
    between(tiny_llava.model, "model", unheard)
    with (
        prune(tiny_llava.model, "divprune", visual_token_num=5),
        pytest.raises(RuntimeError, match="encoded images, and not by get_image_features"),
    ):
        tiny_llava.model(**tiny_llava.inputs)
