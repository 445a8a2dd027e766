"""Names are read from what is installed, whatever its version."""

import inspect
import logging
import types
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import LlamaModel, LlavaModel

from llava import compat

ROOT = Path(__file__).parents[1]
NEWER = Version(transformers.__version__) >= Version("5.24")


def test_the_cache_has_the_name_that_the_installed_models_give_it():
    assert compat.CACHE in inspect.signature(LlamaModel.forward).parameters
    assert compat.CACHE in inspect.signature(LlavaModel.forward).parameters
    assert compat.CACHE == ("cache" if NEWER else "past_key_values")


@pytest.mark.parametrize("name", compat.CACHE_NAMES)
def test_a_cache_is_found_under_either_name_and_handed_on_under_one(name):
    given = compat.named(("input_ids", "attention_mask"), ("ids",), {name: "kept", "use_cache": True})
    assert given == {"input_ids": "ids", "use_cache": True, compat.CACHE: "kept"}
    assert compat.cache_of({name: "kept"}) == "kept"


def test_of_two_caches_the_newer_name_counts():
    """As in Transformers, which ignores the other."""
    assert compat.cache_of({"past_key_values": "old", "cache": "new"}) == "new"
    assert compat.named((), (), {"past_key_values": "old", "cache": "new"}) == {compat.CACHE: "new"}


def test_an_argument_under_another_name_is_missed():
    def forward(hidden, kv=None, **kwargs):
        pass

    compat.refuse_unknown(forward, "Model", ("hidden", "kv"))
    with pytest.raises(
        RuntimeError, match=f"Model.forward takes no {compat.CACHE}.*transformers {transformers.__version__}"
    ):
        compat.refuse_unknown(forward, "Model", ("hidden", compat.CACHE))


@pytest.mark.parametrize("installed, warned", [("99.0.0", True), (compat.TESTED[1], False), (compat.TESTED[0], False)])
def test_a_newer_version_is_warned_of_once(monkeypatch, caplog, installed, warned):
    monkeypatch.setattr(transformers, "__version__", installed)
    compat.warn_if_newer.cache_clear()
    with caplog.at_level(logging.WARNING, "llava.compat"):
        compat.warn_if_newer()
        compat.warn_if_newer()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == warned
    assert all(installed in line and " to ".join(compat.TESTED) in line for line in told)
    compat.warn_if_newer.cache_clear()


def test_documents_and_project_name_the_tested_range():
    tested, models, project = (
        (ROOT / name).read_text() for name in ("docs/tested.md", "docs/models/README.md", "pyproject.toml")
    )
    assert (
        f"from {compat.TESTED[0]} to {compat.TESTED[1]}; the pruners of its own models need {compat.PRUNES_FROM}"
        in tested
    )
    assert f"Transformers ({compat.PRUNES_FROM} and newer)" in models
    assert f'"transformers>={compat.TESTED[0].removesuffix(".0")}"' in project


@pytest.mark.parametrize("output", [(), None, types.SimpleNamespace(states=torch.ones(1, 2, 3)), (torch.ones(2, 3),)])
def test_states_that_are_not_found_have_no_positions(output):
    assert compat.positions_in(output) is None
