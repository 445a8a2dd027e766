"""LLaVA with selectable, training-free visual-token pruners, under LLaVA's own module paths."""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "LlavaConfig": "llava.model",
    "LlavaLlamaConfig": "llava.model",
    "LlavaLlamaForCausalLM": "llava.model",
    "LlavaMistralConfig": "llava.model",
    "LlavaMistralForCausalLM": "llava.model",
    "load": "llava.asking.load",
}
"""Names of the package, and the module that has each."""

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    # What has these names pulls in transformers, which `import llava.pruners` has no use for.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
