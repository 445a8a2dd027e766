"""From what a user asks for, in Python or on the command line, to a pruner."""

from argparse import ArgumentParser, Namespace

import pytest

from llava.pruners import (
    PRUNERS,
    Pruner,
    add_pruner_args,
    name_of,
    option_defaults,
    option_meanings,
    pruner_from_args,
    resolve_pruner,
)


def parse(*argv):
    parser = ArgumentParser(prog="ask")
    add_pruner_args(parser)
    return pruner_from_args(parser.parse_args(argv), parser)


def usage_error(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_nothing_asked_for_is_plain_llava():
    assert resolve_pruner() is None
    assert resolve_pruner("none") is None
    assert resolve_pruner(None, theta=None) is None


@pytest.mark.parametrize("name", PRUNERS)
def test_a_name_and_a_budget_make_a_pruner(name):
    assert resolve_pruner(name, visual_token_num=8) == PRUNERS[name](8)
    assert resolve_pruner(name, keep_ratio=0.5) == PRUNERS[name](keep_ratio=0.5)


def test_a_budget_alone_means_cdpruner_and_with_important_ratio_vispruner():
    assert resolve_pruner(visual_token_num=8) == PRUNERS["cdpruner"](8)
    assert resolve_pruner(keep_ratio=0.5, theta=0.3) == PRUNERS["cdpruner"](keep_ratio=0.5, theta=0.3)
    assert resolve_pruner(visual_token_num=8, important_ratio=0.7) == PRUNERS["vispruner"](8, important_ratio=0.7)


def test_a_budget_of_zero_is_a_budget():
    assert resolve_pruner("divprune", visual_token_num=0) == PRUNERS["divprune"](0)


def test_an_option_that_is_none_is_not_given():
    assert resolve_pruner("vispruner", 8, important_ratio=None, theta=None) == PRUNERS["vispruner"](8)


def test_a_pruner_is_returned_as_it_is():
    pruner = PRUNERS["random"](8, seed=2)
    assert resolve_pruner(pruner) is pruner


@pytest.mark.parametrize("extra", [{"visual_token_num": 4}, {"keep_ratio": 0.5}, {"seed": 1}])
def test_a_pruner_takes_nothing_else(extra):
    with pytest.raises(ValueError, match=next(iter(extra))):
        resolve_pruner(PRUNERS["random"](8), **extra)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'cdprune'.*" + ".*".join(["none", *PRUNERS])):
        resolve_pruner("cdprune", 8)


def test_a_foreign_option_names_the_pruner_the_option_and_the_valid_ones():
    with pytest.raises(TypeError, match="cdpruner.*important_ratio.*theta"):
        resolve_pruner("cdpruner", 8, important_ratio=0.5)
    with pytest.raises(TypeError, match="fastv.*seed.*none"):
        resolve_pruner("fastv", 8, seed=1)
    with pytest.raises(TypeError, match="none.*theta"):
        resolve_pruner("none", theta=0.5)


@pytest.mark.parametrize("budget", [{"visual_token_num": 0}, {"keep_ratio": 0.5}])
def test_none_takes_no_budget(budget):
    with pytest.raises(ValueError, match=f"none.*{next(iter(budget))}"):
        resolve_pruner("none", **budget)


@pytest.mark.parametrize("asked", [{"pruner": "divprune"}, {"important_ratio": 0.5}, {"theta": 0.5}])
def test_a_pruner_without_a_budget_names_both_keywords(asked):
    with pytest.raises(ValueError, match="needs a budget: visual_token_num= or keep_ratio=$"):
        resolve_pruner(**asked)


def test_both_budgets_are_one_too_many():
    with pytest.raises(ValueError, match="exactly one of visual_token_num and keep_ratio"):
        resolve_pruner("divprune", 8, 0.5)


def test_the_command_line_says_the_same_as_python():
    assert parse() is None
    assert parse("--visual_token_num", "8") == PRUNERS["cdpruner"](8)
    assert parse("--pruner", "random", "--keep_ratio", "0.25", "--seed", "3") == PRUNERS["random"](
        keep_ratio=0.25, seed=3
    )
    assert parse("--pruner", "cdpruner", "--visual_token_num", "8", "--theta", "0.3") == PRUNERS["cdpruner"](
        8, theta=0.3
    )
    for words, form in (((), True), (("plain",), "plain"), (("standardised",), "standardised")):
        asked = parse("--pruner", "divprune", "--visual_token_num", "8", "--centered", *words)
        assert asked == PRUNERS["divprune"](8, centered=form)
    assert parse("--visual_token_num", "8", "--important_ratio", "1") == PRUNERS["vispruner"](8, important_ratio=1.0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--pruner", "cdprune", "--visual_token_num", "8"), "cls_topk"),
        (("--pruner", "divprune", "--visual_token_num", "8", "--theta", "0.5"), "divprune has no option theta"),
        (("--visual_token_num", "-1"), "visual_token_num must be an integer, 0 or more, not -1"),
        (("--visual_token_num", "8", "--keep_ratio", "0.5"), "exactly one of visual_token_num and keep_ratio"),
        (("--visual_token_num", "8", "--important_ratio", "1.5"), "important_ratio must be a number in [0, 1]"),
        (("--visual_token_num", "8", "--centered", "both"), "invalid choice: 'both'"),
        (("--pruner", "uniform", "--visual_token_num", "8", "--centered"), "uniform has no option centered"),
        (("--keep_ratio", "1.5"), "keep_ratio must be a number in (0, 1]"),
        (("--pruner", "none", "--visual_token_num", "8"), "none keeps every token"),
        (("--pruner", "uniform"), "--visual_token_num or --keep_ratio"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(capsys, argv, message):
    assert message in usage_error(capsys, *argv)


def test_help_says_which_pruners_read_an_option():
    parser = ArgumentParser()
    add_pruner_args(parser)
    text = " ".join(parser.format_help().split())
    assert "--important_ratio IMPORTANT_RATIO vispruner: share of the kept tokens chosen by attention" in text
    assert "random: of the choice, 0 or more (default: 0); zoo_prune: of the directions (default: 0)" in text
    assert "--alpha ALPHA scope: exponent of attention, 0 or more (default: 1.0); mmtok: weight of the tokens" in text
    assert "cdpruner, divprune, zoo_prune: whether tokens are centred before they are compared (default: off)" in text
    assert "cdpruner: weight of relevance against diversity, in [0, 1) (default: not set)" in text


@pytest.mark.parametrize("name", PRUNERS)
def test_every_option_of_a_pruner_is_described(name):
    assert list(option_meanings(PRUNERS[name])) == list(option_defaults(PRUNERS[name]))


def test_arguments_that_a_program_does_not_have_count_as_not_given():
    assert pruner_from_args(Namespace(visual_token_num=8)) == PRUNERS["cdpruner"](8)


def test_without_a_parser_the_error_is_raised():
    with pytest.raises(ValueError, match="unknown pruner"):
        pruner_from_args(Namespace(pruner="cdprune", visual_token_num=8))


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_knows_the_name_it_is_registered_under(name):
    assert name_of(PRUNERS[name](8)) == name


def test_plain_llava_and_a_pruner_of_ones_own_have_names_too():
    class Mine(Pruner):
        def select(self, cues, budget):
            raise NotImplementedError

    assert name_of(None) == "none" and name_of(Mine(8)) == "Mine"
