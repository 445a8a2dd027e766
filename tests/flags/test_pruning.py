"""The table of flags is what the classes say, and parsers made of it are those that the classes make."""

from argparse import ArgumentParser
from dataclasses import dataclass

import pytest

from llava import pruners
from llava.command import Number
from llava.flags import pruning
from llava.pruners import Pruner
from llava.selecting import options
from scripts import options_table


def flags_of(parser):
    return {
        action.dest: (type(action), action.nargs, action.const, action.default, action.type, action.help)
        + (action.metavar, None if action.choices is None else list(action.choices), group.title)
        for group in parser._action_groups
        for action in group._group_actions
    }


def test_the_table_is_what_the_classes_say():
    assert pruning.TABLE.read_text(encoding="utf-8") == options_table.text(), "make options"


@pytest.mark.parametrize("host", options.HOSTS)
def test_a_parser_made_of_the_table_is_the_one_that_the_classes_make(host):
    of_table, of_classes = ArgumentParser(), ArgumentParser()
    pruning.add_pruning_args(of_table, host)
    options.add_pruning_args(of_classes, host)
    assert flags_of(of_table) == flags_of(of_classes)
    assert pruning.options_of(host) == options.names_of(host)


def test_the_table_names_every_pruner_and_option():
    assert pruning.pruner_names() == list(pruners.PRUNERS)
    assert pruning.option_names() == pruners.option_names()
    assert pruning.inside_pruners() == ["fastv"]


def test_flags_of_both_hosts_are_one_of_each():
    both = ArgumentParser()
    pruning.add_pruning_args(both, *options.HOSTS)
    args = both.parse_args(["--relevance", "llm_text", "--text_chunking", "bos_eos", "--prune_layer", "2"])
    assert (args.relevance, args.text_chunking, args.prune_layer) == ("llm_text", "bos_eos", 2)


def test_a_pruner_that_is_added_is_missing_in_the_table_until_it_is_written(monkeypatch, tmp_path):
    @dataclass(frozen=True)
    class Spread(Pruner):
        power: float = 1.0

        def select(self, cues, budget):
            raise NotImplementedError

    monkeypatch.setitem(pruners.PRUNERS, "spread", Spread)
    assert pruning.TABLE.read_text(encoding="utf-8") != options_table.text()
    options_table.write(options_table.build_parser().parse_args(["--output", str(tmp_path / "options.json")]))
    monkeypatch.setattr(pruning, "TABLE", tmp_path / "options.json")
    monkeypatch.setattr(pruning, "_table", pruning._table.__wrapped__)
    parser = ArgumentParser()
    pruning.add_pruning_args(parser, options.NATIVE)
    args = parser.parse_args(["--pruner", "spread", "--power", "0.5"])
    assert (args.pruner, args.power) == ("spread", 0.5)


def test_bounds_of_a_number_come_back():
    said = options_table.described({"type": Number(float, 0, 1, above=True), "help": "h"})
    assert said == {"type": {"kind": "float", "minimum": 0, "maximum": 1, "above": True}, "help": "h"}
    assert pruning._arguments(said) == {"type": Number(float, 0, 1, above=True), "help": "h"}
