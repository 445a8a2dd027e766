"""LLaVA with selectable, training-free visual-token pruners, under LLaVA's own module paths."""

from importlib import import_module

__version__ = "0.1.0"

_MODEL_NAMES = (
    "LlavaConfig",
    "LlavaLlamaConfig",
    "LlavaLlamaForCausalLM",
    "LlavaMistralConfig",
    "LlavaMistralForCausalLM",
)

__all__ = [*_MODEL_NAMES, "__version__"]


def __getattr__(name: str):
    # The model classes pull in transformers, which `import llava.pruners` has no use for.
    if name in _MODEL_NAMES:
        return getattr(import_module("llava.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODEL_NAMES})
