from argparse import ArgumentParser

import pytest

from llava.eval.pictures.lineup import add_lineup_args, lineup
from llava.pruners import resolve_pruner
from llava.records import InputError


def chosen(words):
    parser = ArgumentParser(conflict_handler="resolve")
    add_lineup_args(parser)
    return lineup(parser.parse_args(words.split()))


def test_every_pruner_is_taken_with_every_budget_and_none_alone():
    pruners = chosen("--pruner none divprune cdpruner --visual_token_num 8 16 --keep_ratio 0.5")
    assert list(pruners) == ["none", "divprune", "cdpruner"] and pruners["none"] == [None]
    for name in ("divprune", "cdpruner"):
        assert pruners[name] == [
            resolve_pruner(name, visual_token_num=8),
            resolve_pruner(name, visual_token_num=16),
            resolve_pruner(name, keep_ratio=0.5),
        ]
    assert chosen("--pruner none") == {"none": [None]}


def test_an_option_goes_to_the_pruners_that_have_it():
    pruners = chosen("--pruner divprune vispruner --visual_token_num 8 --important_ratio 0.75")
    assert pruners["vispruner"] == [resolve_pruner("vispruner", 8, important_ratio=0.75)]
    assert pruners["divprune"] == [resolve_pruner("divprune", 8)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--pruner divprune", "--visual_token_num or --keep_ratio"),
        ("--pruner divprune --visual_token_num -1", "visual_token_num must be an integer, 0 or more, not -1"),
        ("--pruner divprune --visual_token_num 8 --theta 0.1", "--theta is an option of none of divprune"),
        ("--pruner vispruner --visual_token_num 8 --important_ratio 2", "important_ratio"),
    ],
)
def test_what_does_not_fit_is_refused(words, complaint):
    with pytest.raises(InputError, match=complaint):
        chosen(words)


def test_an_unknown_name_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        chosen("--pruner prunemaster --visual_token_num 8")
    assert "divprune" in capsys.readouterr().err
