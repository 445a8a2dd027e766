"""What the plugin brings into vLLM's processes before a model is loaded."""

import subprocess
import sys

import pytest


def imported(code: str) -> set[str]:
    """The modules that a process has imported behind a piece of code."""
    told = f"{code}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.split())


def test_the_package_imports_nothing_heavy():
    heavy = {"torch", "transformers", "vllm", "llava.model", "llava.pruners"}
    assert not imported("import llava.vllm.registration") & heavy


@pytest.mark.vllm
def test_registering_imports_nothing_of_the_model():
    pytest.importorskip("vllm")
    before = "import vllm.model_executor.models.config\nfrom vllm import ModelRegistry"
    twice = "from llava.vllm.registration import register\nregister()\nregister()"
    new = imported(f"{before}\n{twice}") - imported(before)
    assert {name for name in new if name.startswith("llava")} == {"llava", "llava.vllm", "llava.vllm.registration"}


@pytest.mark.vllm
def test_every_class_that_shows_pictures_is_checked_and_keeps_its_hook():
    pytest.importorskip("vllm")
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    from llava.vllm.registration import register

    known = {name: hook for name, hook in MODELS_CONFIG_MAP.items() if not hasattr(hook, "checks_pruner")}
    register()
    classes = [name for name in ModelRegistry.get_supported_archs() if name.endswith("ForConditionalGeneration")]
    assert "Qwen2_5_VLForConditionalGeneration" in classes
    for name in classes:
        hook = MODELS_CONFIG_MAP[name]
        assert hook.checks_pruner and issubclass(hook, known.get(name, VerifyAndUpdateConfig))
        assert hook.verify_and_update_config == known.get(name, VerifyAndUpdateConfig).verify_and_update_config
