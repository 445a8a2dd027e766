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


HOOKS = """
from vllm import ModelRegistry
from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
from llava.vllm.registration import register

known = dict(MODELS_CONFIG_MAP)
register()
classes = [name for name in ModelRegistry.get_supported_archs() if name.endswith("ForConditionalGeneration")]
assert "Qwen2_5_VLForConditionalGeneration" in classes and set(classes) & set(known), "some have a hook of vLLM's"
for name in classes:
    hook, own = MODELS_CONFIG_MAP[name], known.get(name, VerifyAndUpdateConfig)
    assert hook.checks_pruner and issubclass(hook, own)
    method = hook.verify_and_update_config, own.verify_and_update_config
    assert getattr(method[0], "__func__", method[0]) is getattr(method[1], "__func__", method[1])
assert {name: MODELS_CONFIG_MAP[name] for name in set(known) - set(classes)} == {
    name: known[name] for name in set(known) - set(classes)
}
"""


@pytest.mark.vllm
def test_every_class_that_shows_pictures_is_checked_and_keeps_its_hook():
    pytest.importorskip("vllm")
    subprocess.run([sys.executable, "-c", HOOKS], check=True)
