import subprocess
import sys

import pytest

from llava.eval.__main__ import PROGRAMS, SUBMITTED, main, program_of
from llava.eval.tasks import TASKS

WORDS = [
    *([name] for name in PROGRAMS),
    *(["score", task] for task in TASKS),
    *(["submit", task] for task in SUBMITTED),
]


@pytest.mark.parametrize("words", WORDS)
def test_every_program_explains_itself_by_the_words_that_call_it(words):
    parser, function, rest = program_of([*words, "--option", "value"])
    assert parser.format_help().startswith(f"usage: python -m llava.eval {' '.join(words)}")
    assert callable(function) and rest == ["--option", "value"]


@pytest.mark.parametrize("words", [[], ["scor", "gqa"], ["score"], ["score", "gqaa"], ["submit", "pope"]])
def test_words_that_name_no_program_are_told_which_there_are(words):
    with pytest.raises(SystemExit, match=r"(?s)usage: .*score TASK.*gqa.*doctor.*table.*video.*demo"):
        main(words)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["scor"], "unknown program 'scor'; valid are run, sweep, score, submit, doctor"),
        (["score", "gqaa"], "score: unknown benchmark 'gqaa'; valid are vqav2, gqa"),
        (["submit", "pope"], "submit: unknown benchmark 'pope'; valid are vqav2, gqa, vizwiz, mmbench"),
    ],
)
def test_the_last_line_says_which_word_is_wrong_and_what_it_may_be(words, fault):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code.splitlines()[-1].startswith(f"python -m llava.eval: error: {fault}")


def test_help_names_every_program(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in ["score TASK", "submit TASK", *PROGRAMS])


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"]])
def test_what_needs_no_model_imports_neither_torch_nor_transformers(words):
    code = f"import sys; from llava.eval.__main__ import main\ntry: main({words})\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
