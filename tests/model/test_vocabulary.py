"""Tokenizers that are whole and belong to the model, and rows for the tokens that are added."""

import json
import shutil

import pytest
import torch

from llava.model.vocabulary import load_tokenizer

from .test_config_checks import edit


@pytest.fixture
def broken(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "llava-broken")


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_damaged_tokenizer_is_named(broken, share):
    file = broken / "tokenizer.model"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ValueError, match="tokenizer.model is damaged"):
        load_tokenizer(broken)


def test_a_missing_tokenizer_and_broken_settings_are_named(broken):
    (broken / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer of .*llava-broken"):
        load_tokenizer(broken)
    (broken / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match="llava-broken holds no tokenizer: none of tokenizer.model"):
        load_tokenizer(broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer of .*llava-broken"):
        load_tokenizer(broken)


def test_a_tokenizer_of_a_larger_model_is_refused(load, broken):
    (broken / "added_tokens.json").write_text(json.dumps({"<of_another>": 900}))
    with pytest.raises(ValueError, match="the tokenizer has 901 tokens, the model 900: <of_another>"):
        load(broken)


def test_marks_that_prompts_have_need_rows_and_a_token_without_use_gets_the_mean(load, broken):
    edit(broken, mm_use_im_start_end=True)
    with pytest.raises(
        ValueError, match="mm_use_im_start_end is set, and the 900 embeddings have no <im_end>, <im_start>"
    ):
        load(broken)
    edit(broken, mm_use_im_start_end=False, mm_use_im_patch_token=True)
    first, again = (load(broken)[1] for _ in range(2))
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = first.get_parameter(table)
        torch.testing.assert_close(rows[900], rows[:900].mean(dim=0))
        assert torch.equal(rows, again.get_parameter(table))
