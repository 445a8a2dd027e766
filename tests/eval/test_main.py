import pytest

from llava.eval.__main__ import PROGRAMS, SCORERS, main, program_of


@pytest.mark.parametrize("words", [[name] for name in PROGRAMS] + [["score", task] for task in SCORERS])
def test_every_program_explains_itself_by_the_words_that_call_it(words):
    program, function, rest = program_of([*words, "--option", "value"])
    assert program.build_parser().format_help().startswith(f"usage: python -m llava.eval {' '.join(words)}")
    assert callable(getattr(program, function)) and rest == ["--option", "value"]


@pytest.mark.parametrize("words", [[], ["scor", "gqa"], ["score"], ["score", "gqaa"]])
def test_words_that_name_no_program_are_told_which_there_are(words):
    with pytest.raises(SystemExit, match=r"(?s)usage: .*score TASK.*gqa.*doctor.*table.*video.*demo"):
        main(words)


def test_help_names_every_program(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in ["score TASK", *PROGRAMS])
