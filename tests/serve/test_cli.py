import io
import logging
import re
import subprocess
import sys

import pytest
from PIL import Image

from llava.asking.load import model_path
from llava.command import run_program
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.splice import PromptTooLong
from llava.records import InputError
from llava.selecting.options import PruningOptions
from llava.serve import cli
from llava.serve.commands import pruning
from llava.shapes import checkpoint_path


@pytest.fixture
def image_file(tmp_path):
    Image.new("L", (9, 12), 77).save(tmp_path / "a grey one.png")
    return str(tmp_path / "a grey one.png")


@pytest.fixture
def talk(monkeypatch, loaded, image_file):
    """Runs the program on typed lines; returns what it loaded."""
    loads = []

    def load_model(args, pruner):
        loads.append((args, pruner))
        return loaded

    def run(typed, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        run_program(cli.build_parser(), cli.talk, ["--image-file", image_file, *options])
        return loads

    monkeypatch.setattr(cli, "load_model", load_model)
    run.loads = loads
    return run


@pytest.mark.parametrize("ending", ["", "\n"])
def test_answers_line_after_line_until_an_empty_one_or_the_end(talk, capsys, ending):
    talk(f"What?\n How many? \n{ending}")
    screen = capsys.readouterr().out
    assert screen.rstrip("\n") == "USER: ASSISTANT: It is red.\nUSER: ASSISTANT: It is red.\nUSER: "


def test_without_a_path_it_is_the_embedded_model_under_the_template_of_its_training(talk, model):
    ((args, pruner),) = talk("What?\n")
    assert args.model_path is None and pruner is None
    assert model_path(args) == checkpoint_path()
    assert "between a curious user and" in model.calls[0]["system"]


def test_the_flags_reach_model_pruner_and_decoding(talk, model):
    options = "--pruner divprune --visual_token_num 7 --temperature 0 --max-new-tokens 4 --load-4bit"
    ((args, pruner),) = talk("What?\n", *options.split())
    assert type(pruner).__name__ == "DivPrune" and pruner.visual_token_num == 7
    assert args.load_4bit and not args.load_8bit
    assert model.calls[0]["max_new_tokens"] == 4 and model.calls[0]["do_sample"] is False


def test_samples_at_llavas_temperature_unless_told_otherwise(talk, model):
    talk("What?\n")
    assert model.calls[0]["do_sample"] is True and model.calls[0]["temperature"] == 0.2


def test_debugging_shows_prompt_and_tokens(talk, caplog):
    with caplog.at_level(logging.INFO, "llava.serve.cli"):
        talk("What?\n", "--debug")
    assert "5 of 9 visual tokens" in caplog.text and "USER: <image>" in caplog.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_file": "absent.png"}, r"cannot read the image absent\.png"),
        ({"conv_mode": "vicuna"}, "vicuna_v1"),
        ({"pruner": "divprune"}, "divprune needs a budget"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(talk, image_file, options, complaint):
    args = cli.build_parser().parse_args(["--image-file", image_file])
    vars(args).update(options)
    with pytest.raises(InputError, match=complaint):
        cli.talk(args)
    assert talk.loads == []


MARKS = "<image>", "<image-placeholder>", "<video>", "<im_start>", "<im_end>", "<im_patch>", "<unk>", "<s>", "{}", "%s"


@pytest.mark.parametrize("mark", MARKS)
def test_a_turn_that_says_what_stands_for_an_image_is_answered_about_the_one_there_is(talk, model, capsys, mark):
    talk(f"What does {mark} mean?\nAnd {mark}{mark}?\n")
    assert capsys.readouterr().out.count("It is red.") == 2
    assert [call["ids"].count(IMAGE_TOKEN_INDEX) for call in model.calls] == [1, 1]


def test_an_answer_that_says_image_shows_none_in_the_next_turn(talk, model):
    model.reply = "An <image>."
    talk("What?\nWhich?\n")
    assert [call["ids"].count(IMAGE_TOKEN_INDEX) for call in model.calls] == [1, 1]


def test_a_mark_alone_asks_nothing_and_does_not_end_the_conversation(talk, model, caplog):
    talk(" <image> \nWhat?\n")
    assert [call["texts"] for call in model.calls] == [["What?"]] and "asks nothing" in caplog.text


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize(
    ("line", "texts"),
    [
        (b"\xef\xbb\xbfHow many?", "How many?"),
        (b"\xff\xfeH\0o\0w\0?\0", "\ufffd\ufffdHow?"),
        ("Wie viele K\u00f6rper?".encode("latin-1"), "Wie viele K\ufffdrper?"),
        ("Wie viele K\u00f6rper?".encode(), "Wie viele K\u00f6rper?"),
        (b"\xed\xa0\x80 How?", "\ufffd\ufffd\ufffd How?"),
    ],
)
def test_a_line_of_any_bytes_is_read_as_well_as_it_can_be(talk, model, monkeypatch, capsys, line, texts, encoding):
    typed = io.TextIOWrapper(io.BytesIO(line + b"\nWhat?\n\n"), encoding)
    monkeypatch.setattr(cli, "load_image", lambda file: Image.new("RGB", (9, 12)))
    monkeypatch.setattr("sys.stdin", typed)
    run_program(cli.build_parser(), cli.talk, ["--image-file", "any.png"])
    assert [call["texts"] for call in model.calls] == [[texts], ["What?"]]


def test_programs_for_one_question_need_no_locks_of_files():
    code = "import sys; sys.modules['fcntl'] = None\n"
    code += "import llava.serve.cli, llava.eval.run_llava, llava.eval.ask.locks\n"
    code += "llava.eval.ask.locks.check_locks()"
    masked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert masked.stderr.strip().endswith("with fcntl, which Python has on Linux, macOS and WSL alone")


class TestCommands:
    @pytest.mark.parametrize(
        ("line", "keywords"),
        [
            ("divprune 36", {"pruner": "divprune", "visual_token_num": 36}),
            ("divprune 0.25", {"pruner": "divprune", "keep_ratio": 0.25}),
            ("divprune 25%", {"pruner": "divprune", "keep_ratio": 0.25}),
            ("none", {"pruner": "none"}),
            (
                "vispruner 36 important_ratio=0.3 budget_scope=image",
                {"pruner": "vispruner", "visual_token_num": 36, "important_ratio": 0.3, "budget_scope": "image"},
            ),
        ],
    )
    def test_words_mean_the_keywords_of_prune(self, line, keywords):
        assert pruning(line.split()) == keywords

    def test_switch_the_pruner_within_a_conversation(self, talk, model, capsys):
        talk("/pruner\nQ1\n/pruner divprune 7\nQ2\n/pruner none\nQ3\n/help\n")
        asked = [call.get("pruning", "as loaded") for call in model.calls]
        assert asked[0] == "as loaded" and asked[1].pruner.visual_token_num == 7 and asked[2] == PruningOptions()
        screen = capsys.readouterr().out
        assert "pruner: divprune visual_token_num=7\n" in screen and "pruner: none\n" in screen
        assert "/pruner NAME BUDGET" in screen and "divprune, " in screen

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ("/pruner best 7", "unknown pruner 'best'; the known ones are none, .*divprune"),
            ("/pruner divprune", "divprune needs a budget"),
            ("/pruner divprune many", "'many' is neither a budget, such as 36 or 25%, nor OPTION=VALUE"),
            ("/pruner divprune 7 colour=red", "unknown options colour; valid are .*centered"),
            ("/pruner divprune 7 theta=1", "divprune has no option theta; its options are: centered"),
            ("/prune divprune", "/prune is no command; there are /pruner and /help"),
        ],
    )
    def test_that_are_wrong_are_said_and_do_not_end_the_conversation(self, talk, model, caplog, line, complaint):
        talk(f"/pruner divprune 7\n{line}\nWhat?\n")
        assert re.search(complaint, caplog.text)
        assert [call["pruning"].pruner.visual_token_num for call in model.calls] == [7]

    def test_a_question_that_cannot_be_asked_is_said_and_does_not_end_the_conversation(
        self, talk, loaded, model, caplog
    ):
        model.generate = lambda *args, **given: (_ for _ in ()).throw(PromptTooLong(0, 9, 8))
        talk("What?\nWho?\n")
        assert "the question 'What?' would lose its end" in caplog.text and "'Who?'" in caplog.text
