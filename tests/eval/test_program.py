import io
import sys
from argparse import ArgumentParser

import pytest

from llava.eval.program import run_program
from llava.eval.records import InputError


def test_characters_that_a_terminal_lacks_cost_no_result(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    run_program(ArgumentParser(), lambda args: print("Café \ud83d: 50%", flush=True), [])
    assert written.getvalue() == b"Caf\\xe9 \\ud83d: 50%\n"


def test_what_the_user_can_repair_ends_a_program_with_one_line():
    def refuse(args):
        raise InputError("a.jsonl, line 1: no")

    with pytest.raises(SystemExit, match=r"^doctor: error: a\.jsonl, line 1: no$"):
        run_program(ArgumentParser(prog="doctor"), refuse, [])
