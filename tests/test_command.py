"""Numbers and texts as they come in, and how a program ends."""

import io
import math
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

import numpy as np
import pytest

from llava.asking.batch import check_decoding, generation_options
from llava.asking.prompts import typed
from llava.command import SEED, SHARE, Number, Parser, at_least, check_values, reason, run_program
from llava.records import InputError

NUMBERS = {
    at_least(0): (["0", "7", "036", " 5 "], ["-1", "nan", "inf", "1.5", "", "x", "1e3", "9" * 5000]),
    SEED: (["0", str(2**63 - 1)], ["-1", str(2**63), "9" * 400]),
    SHARE: ([".5", "1", "1e-3", "0.50"], ["0", "-0.0", "nan", "inf", "-inf", "7", "1.0001", "", "half"]),
    Number(float, 0): (["0", "1e9", "-0"], ["-1", "nan", "inf", "1e999", "-1e-30"]),
}


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_number_is_within_its_bounds_as_text_and_as_a_value(number):
    good, bad = NUMBERS[number]
    for text in good:
        assert number(text) == number.kind(text) == number.check("--x", number.kind(text))
    for text in bad:
        with pytest.raises(ArgumentTypeError, match="is not a"):
            number(text)


@pytest.mark.parametrize("number", [at_least(0), SHARE], ids=str)
@pytest.mark.parametrize("value", [True, False, "1", [1], np.bool_(True), np.nan, math.inf, -1, 10**400 * -1, 1j])
def test_a_value_that_is_no_such_number_is_named_with_its_flag(number, value):
    with pytest.raises(InputError, match="--x: .* is not a"):
        number.check("--x", value)


def test_numbers_of_other_libraries_become_pythons():
    assert type(at_least(1).check("--x", np.int64(3))) is int
    assert type(SHARE.check("--x", np.float32(0.5))) is float


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.nan},
        {"temperature": -1},
        {"temperature": 1e-40},
        {"temperature": True},
        {"temperature": "0"},
        {"top_p": 7},
        {"top_p": 0},
        {"num_beams": 0},
        {"max_new_tokens": 1.5},
    ],
    ids=str,
)
def test_decoding_has_bounds_for_every_caller(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(InputError, match=f"^{name}: "):
        generation_options(**wrong)
    with pytest.raises(InputError, match=f"^--{name}: "):
        check_decoding(wrong, "--")


def parser():
    made = ArgumentParser(prog="here")
    made.add_argument("--size", type=at_least(1), default=2)
    made.add_argument("--kind", choices=["a", "b"])
    made.add_argument("--many", nargs="+", choices=["a", "b"])
    made.add_argument("--flag", action="store_true")
    made.add_argument("--form", nargs="?", const=True, choices=["a", "b"])
    return made


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "--size: 0 is not an integer of at least 1"),
        ({"kind": "c"}, "--kind: 'c' is not one of a, b"),
        ({"kind": ["a"]}, r"--kind: \['a'\] is not one of"),
        ({"many": ["a", "c"]}, "--many: 'c' is not one of"),
        ({"flag": "False"}, "--flag: 'False' is neither True nor False"),
        ({"form": "c"}, "--form: 'c' is not one of a, b"),
        ({"form": 2}, "--form: 2 is not one of a, b"),
    ],
)
def test_attributes_of_an_object_are_held_against_the_flags(wrong, message):
    with pytest.raises(InputError, match=message):
        check_values(Namespace(**wrong), parser())
    checked = check_values(Namespace(size=np.int32(4), kind=None, many=["a"], flag=np.bool_(True)), parser())
    assert type(checked.size) is int
    for words, value in (["--form"], True), (["--form", "a"], "a"), ([], None):
        assert check_values(parser().parse_args(words), parser()).form == value
    assert check_values(Namespace(form=np.bool_(False)), parser()).form is False


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), "a.json: No such file or directory"),
        (OSError("the hub\nis away"), "OSError: the hub is away"),
        (ModuleNotFoundError("No module named 'peft'"), "No module named 'peft'"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("CUDA out of memory. Tried"), "RuntimeError: CUDA out of memory. Tried"),
    ],
)
def test_what_the_user_can_repair_ends_a_program_with_one_line(error, line):
    def program(args):
        raise error

    assert reason(error) == line
    with pytest.raises(SystemExit, match="^here: error: ") as caught:
        run_program(parser(), program, [])
    assert caught.value.code == f"here: error: {line}"


def test_ctrl_c_ends_a_program_without_a_traceback():
    def program(args):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_program(parser(), program, [])
    assert caught.value.code == 130


def test_a_fault_of_the_program_stays_one():
    def program(args):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_program(parser(), program, [])


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_no_text_is_too_much_for_input_or_screen(monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("K\u00f6rper\n".encode() + b"K\xf6rper\n"), encoding))
    monkeypatch.setattr("sys.stdout", screen)
    run_program(parser(), lambda args: print(input(), input(), "\u2713 \ud83d"), [])
    written = screen.buffer.getvalue().decode(encoding)
    assert "K" in written and "rper" in written and "\\ud83d" in written
    if encoding == "ascii":
        assert written.startswith("K\\xf6rper K\\ufffdrper")


def test_a_reader_who_has_seen_enough_gets_no_traceback():
    code = "from argparse import ArgumentParser; from llava.command import run_program\n"
    code += "run_program(ArgumentParser(), lambda args: [print('x' * 999) for _ in range(999)])"
    head = subprocess.run(f"'{sys.executable}' -c \"{code}\" | head -n 1", shell=True, capture_output=True, text=True)
    assert head.stdout == "x" * 999 + "\n" and head.stderr == ""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\ufeffHow many?", "How many?"),
        ("\0H\0o\0w", "How"),
        ("K\udcf6rper", "K\ufffdrper"),
        ("\ud83d\ude00", "\U0001f600"),
        ("Wie viele K\u00f6rper? \U0001f600", "Wie viele K\u00f6rper? \U0001f600"),
    ],
)
def test_what_is_typed_reaches_the_tokenizers_as_text(text, read, llama_tokenizer):
    assert typed(text) == read
    assert llama_tokenizer(read).input_ids


def test_a_wrong_word_is_not_hidden_by_a_usage_of_all_flags(capsys):
    parser = Parser(prog="llava ask")
    parser.add_argument("--pruner", choices=["cdpruner", "divprune"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--pruner", "cdprunner"])
    first, last = capsys.readouterr().err.splitlines()
    assert first == "llava ask --help says what it takes"
    assert last.startswith("llava ask: error: argument --pruner: ") and last.endswith("; did you mean cdpruner?")
