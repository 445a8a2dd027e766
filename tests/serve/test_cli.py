import io
import logging

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.eval.options import model_path
from llava.eval.program import run_program
from llava.eval.records import InputError
from llava.serve import cli
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


def test_the_sides_have_names_without_marks():
    assert cli.names(conv_templates["vicuna_v1"]) == ("USER", "ASSISTANT")
    assert cli.names(conv_templates["chatml_direct"]) == ("user", "assistant")
    assert cli.names(conv_templates["plain"]) == ("user", "assistant")


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
