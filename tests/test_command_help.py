"""What a command line says of itself, and of words that are none of its own."""

import pytest

from llava.command import Parser, did_you_mean, later


@pytest.fixture
def parser():
    parser = Parser(prog="ask", allow_abbrev=False)
    parser.add_argument("--many", nargs="+", default=["a", "b"], help="one % of them".replace("%", "%%"))
    parser.add_argument("--share", default="5 %", help="of the tokens")
    parser.add_argument("--told", default=3, help="3 if not given")
    parser.add_argument("--on", action="store_true", help="it is on")
    parser.add_argument("--none", help="nothing")
    parser.add_argument("--name", choices=["cdpruner", "divprune"], default="cdpruner", help="who chooses")
    return parser


def test_help_tells_every_default_once(parser):
    shown = " ".join(parser.format_help().split())
    assert "one % of them (default: a b)" in shown and "of the tokens (default: 5 %)" in shown
    assert "3 if not given --on it is on --none NONE nothing --name" in shown
    assert shown.endswith("who chooses (default: cdpruner)")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--name", "cdprunr"], "invalid choice: 'cdprunr' (choose from .*); did you mean cdpruner?"),
        (["--nam", "divprune"], "unrecognized arguments: --nam divprune; did you mean --name?"),
        (["--shares=4"], "unrecognized arguments: --shares=4; did you mean --share?"),
    ],
)
def test_a_mistyped_word_is_told_with_the_one_it_is_close_to(parser, capsys, words, told):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    said = capsys.readouterr().err
    start, _, end = told.partition(".*")
    assert stopped.value.code == 2 and start in said and said.endswith(f"{end}\n")


def test_a_word_that_is_close_to_none_has_no_hint(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--name", "xyz"])
    assert "did you mean" not in capsys.readouterr().err
    assert did_you_mean("xyz", ["abc"]) == ""


def test_a_function_is_imported_when_it_is_called():
    gone = later("llava.no_such_module function")
    with pytest.raises(ImportError, match="no_such_module"):
        gone()
    assert later("llava.command did_you_mean")("abd", valid=["abc"]) == "; did you mean abc?"
