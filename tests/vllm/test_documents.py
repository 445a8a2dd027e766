"""What docs/serving.md tells users to type is what vLLM and its plugin take."""

import json
import re
import shlex
from dataclasses import fields

import pytest

from llava.pruners import option_names
from llava.pruners.base import BUDGETS
from llava.selecting.options import PruningOptions
from llava.vllm import ENTRY, TESTED
from llava.vllm.options import ONE_WAY, served

from .conftest import REPOSITORY
from .test_options import config

TEXT = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \| (?:(.*?) )?\| (.*?) \|$", TEXT, re.MULTILINE)


def test_the_options_shown_are_served():
    shown = re.findall(r"--hf-overrides '(.*?)'", TEXT)
    assert shown
    for overrides in shown:
        assert served(config(json.loads(overrides)[ENTRY])).options.pruner


def test_every_option_has_a_row():
    named = {name for names, _, _ in ROWS for name in re.findall(r"`(\w+)`", names)}
    assert named == {each.name for each in fields(PruningOptions)} | {*BUDGETS, *option_names(), *ONE_WAY}


def test_what_has_one_value_is_told_with_its_reason():
    told = {names.strip("`"): (default.strip("`"), words) for names, default, words in ROWS}
    for name, (value, reason) in ONE_WAY.items():
        assert told[name] == (str(value), f"nothing else: {reason}".replace("llm_text", "`llm_text`"))


def test_the_versions_are_those_that_were_tested():
    first, beyond = TESTED
    assert f"from {first} to before {beyond}" in TEXT


@pytest.mark.vllm
def test_every_flag_is_vllms():
    pytest.importorskip("vllm")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    commands = [line for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("vllm serve ")]
    assert commands
    for command in commands:
        _, _, folder, *words = shlex.split(command)
        assert parser.parse_args(["--model", folder, *words]).hf_overrides[ENTRY]
    ours = {"--model-path", "--output-path", "--engine"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - ours <= set(parser._option_string_actions)


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"])
def test_either_variable_ends_the_statistics(name, monkeypatch):
    pytest.importorskip("vllm")
    from vllm.usage import usage_lib

    for each in ("VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(usage_lib, "_USAGE_STATS_ENABLED", None)
    monkeypatch.setenv(name, "1")
    assert not usage_lib.is_usage_stats_enabled()
