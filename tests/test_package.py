import subprocess
import sys
from pathlib import Path

import pytest

import llava
from llava.utils import disable_torch_init


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    command = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-c", command], text=True).split())


def test_importing_the_package_loads_neither_torch_nor_transformers():
    assert not {"torch", "transformers"} & loaded_by("import llava, llava.constants, llava.conversation")


def test_importing_the_pruners_does_not_load_transformers():
    assert "transformers" not in loaded_by("import llava.pruners")


def test_the_model_is_found_under_the_package_itself():
    from llava.model.language_model import llava_llama
    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaConfig, LlavaLlamaForCausalLM

    assert LlavaLlamaForCausalLM is llava_llama.LlavaLlamaForCausalLM
    assert LlavaConfig is LlavaLlamaConfig is llava_llama.LlavaConfig


def test_loading_is_a_name_of_the_package():
    from llava.asking.load import load

    assert llava.load is load and "load" in llava.__all__
    assert not {"torch", "transformers"} & loaded_by("import llava; dir(llava)")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="LlavaMptForCausalLM"):
        llava.LlavaMptForCausalLM  # noqa: B018


def test_every_announced_name_exists():
    assert all(hasattr(llava, name) for name in llava.__all__)
    assert set(llava.__all__) <= set(dir(llava))


def test_old_programs_may_still_ask_to_skip_initialisation():
    assert disable_torch_init() is None


def test_the_package_says_that_its_types_are_meant():
    assert (Path(llava.__file__).parent / "py.typed").exists()
