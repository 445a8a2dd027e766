"""One table of ways in and one of options that cannot work: each is refused at each, in one line, before the model."""

import json
from argparse import Namespace
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.asking import load as load_module
from llava.command import run_program
from llava.pruners import option_names
from llava.pruners.base import BUDGETS
from llava.records import InputError

REPOSITORY = Path(__file__).parents[1]
FLASH = "flash_attention_2"


@dataclass(frozen=True)
class Program:
    """A command: its module, the function behind it, and the words it needs before any other."""

    module: str
    function: str
    words: str

    def run(self, *words):
        module = import_module(self.module)
        run_program(module.build_parser(), getattr(module, self.function), [*self.words.split(), *words])


ASKED = "--question-file q.jsonl --image-folder . --answers-file out/a.jsonl"
LINEUP = "--pruner divprune --visual_token_num 4 --output out/a.png"
PROGRAMS = [
    Program("llava.eval.model_vqa", "eval_model", ASKED),
    Program("llava.eval.model_vqa_loader", "eval_model", ASKED),
    Program("llava.eval.model_vqa_science", "eval_model", ASKED.replace("q.jsonl", "q.json")),
    Program("llava.eval.model_vqa_mmbench", "eval_model", "--question-file q.tsv --answers-file out/a.jsonl"),
    Program(
        "llava.eval.model_vqa_qbench", "eval_model", ASKED.replace("question-file q.jsonl", "questions-file q.json")
    ),
    Program("llava.eval.ask.video", "eval_model", f"--model-path m {ASKED.replace('image-folder', 'video-folder')}"),
    Program("llava.eval.run_llava", "eval_model", "--image-file a.png --query What?"),
    Program("llava.serve.cli", "talk", "--image-file a.png"),
    Program("llava.eval.demo", "run_demo", "--output-dir out"),
    Program("scripts.visualize_selection", "visualize", f"a.png What? {LINEUP}"),
    Program("scripts.visualize_diversity", "visualize", f"a.png {LINEUP}"),
]
WRONG = {
    "--temperature nan": "'nan' is not a number of at least 0",
    "--temperature inf": "'inf' is not a number of at least 0",
    "--temperature -1": "'-1' is not a number of at least 0",
    "--temperature 1e-40": "--temperature: 1e-40 is too close to 0",
    "--top_p 7": "'7' is not a number above 0 and at most 1",
    "--top_p 0": "'0' is not a number above 0 and at most 1",
    "--num_beams 0": "'0' is not an integer of at least 1",
    "--max_new_tokens 1.5": "'1.5' is not an integer of at least 1",
    "--max-new-tokens 0": "'0' is not an integer of at least 1",
    "--batch_size 0": "'0' is not an integer of at least 1",
    "--num_workers -1": "'-1' is not an integer of at least 0",
    "--num-chunks 0": "'0' is not an integer of at least 1",
    "--pruner random --keep_ratio 0.5 --seed -1": "--seed must be an integer, 0 or more, not -1",
    "--num-questions nan": "'nan' is not an integer of at least 2",
    "--device foo": "--device 'foo' is no device; valid here: cpu",
    "--device cuda": "--device 'cuda': torch sees no such device; valid here: cpu",
    "--device cuda:7": "--device 'cuda:7': torch sees no such device; valid here: cpu",
    "--device mps": "--device 'mps': torch sees no such device; valid here: cpu",
    f"--attn {FLASH}": f"--attn {FLASH} needs a GPU; valid without one: sdpa, eager",
    "--attn fast": "'sdpa', 'eager', 'flash_attention_2'",
    "--dtype int8": "'float32', 'float16', 'bfloat16'",
    "--vision_dtype float8": "'float32', 'float16', 'bfloat16'",
    "--anyres square": "'native', 'fixed'",
    "--budget_scope batch": "'tile', 'image'",
    "--positions gaps": "'compact', 'original'",
    "--text_chunking cut": "'release', 'bos_eos'",
    "--prune_layer -1": "'-1' is not an integer of at least 0",
    "--prune_layer two": "'two' is not an integer of at least 0",
    "--conv-mode vicuna": "valid are chatml_direct",
    "--pruner cdpruner --keep_ratio nan": "--keep_ratio must be a number in (0, 1], not nan",
    "--pruner cdpruner --keep_ratio 0": "--keep_ratio must be a number in (0, 1], not 0.0",
    "--pruner cdpruner --keep_ratio inf": "--keep_ratio must be a number in (0, 1], not inf",
    "--pruner cdpruner --keep_ratio 0.5 --theta nan": "--theta must be None or a number in [0, 1), not nan",
    "--pruner vispruner --keep_ratio 0.5 --important_ratio nan": "--important_ratio must be a number in [0, 1]",
    "--pruner visionzip --keep_ratio 0.5 --contextual_ratio 1": "--contextual_ratio must be a number in [0, 1)",
    "--pruner cdpruner --visual_token_num -4": "--visual_token_num must be an integer, 0 or more, not -4",
    "--pruner cdpruner --visual_token_num 4.5": "invalid int value: '4.5'",
    "--pruner fastv --keep_ratio 0.5": "fastv needs prune_layer of 1 or more",
    "--pruner trim --keep_ratio 0.5 --prune_layer 1": "trim merges tokens",
    "--pruner divprune --keep_ratio 0.5 --prune_layer 1 --positions compact": "positions are 'original'",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what every program is pointed to, on a machine without a GPU; loading a model is an error."""

    def load(*args, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load_module, "load_pretrained_model", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Image.new("RGB", (8, 8)).save("a.png")
    line = {"question_id": 1, "image": "a.png", "text": "What?"}
    Path("q.jsonl").write_text(json.dumps(line))
    Path("q.json").write_text(json.dumps([{"img_path": "a.png", "question": "What?", "candidates": ["A"]}]))
    Path("q.tsv").write_text("index\tquestion\timage\tA\n")
    return tmp_path


def has(program, flag):
    return any(flag in action.option_strings for action in import_module(program.module).build_parser()._actions)


TRIED = [
    pytest.param(program, wrong, id=f"{program.module.rpartition('.')[2]} {wrong}")
    for program in PROGRAMS
    for wrong in WRONG
    if has(program, wrong.split()[0])
    and has(program, wrong.split()[-2])
    # Several pruners at several budgets have flags of their own, which take more than one value.
    and not ("visualize" in program.module and "--pruner" in wrong and "--keep_ratio" in wrong)
]


@pytest.mark.parametrize(("program", "wrong"), TRIED)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_loaded_or_written(place, capsys, program, wrong):
    with pytest.raises(SystemExit) as refused:
        program.run(*wrong.split())
    said = refused.value.code if isinstance(refused.value.code, str) else capsys.readouterr().err
    (line,) = said.strip().splitlines()[-1:]
    assert ": error: " in line and WRONG[wrong] in line
    assert not (place / "out").exists()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.module.rpartition(".")[2])
def test_an_empty_name_of_a_checkpoint_is_not_the_embedded_model(place, program):
    with pytest.raises(SystemExit, match="--model-path is (empty: name a checkpoint|missing)"):
        program.run("--model-path", "")
    assert not (place / "out").exists()


@pytest.mark.parametrize("script", ["visualize_selection", "visualize_diversity"])
def test_an_image_that_cannot_be_read_is_told_before_the_model_loads(place, script):
    Path("a.png").write_bytes(b"")
    (program,) = (program for program in PROGRAMS if program.module == f"scripts.{script}")
    with pytest.raises(SystemExit, match=r"cannot read the image a\.png"):
        program.run()
    assert not (place / "out").exists()


ATTRIBUTES = {
    "temperature": (float("nan"), -1, True, "hot"),
    "top_p": (7, float("nan")),
    "num_beams": (0, 2.5),
    "max_new_tokens": (True,),
    "device": ("foo", "cuda:7"),
    "attn_implementation": (FLASH, "fast"),
    "anyres": ("square", True),
    "dtype": ("int8", 16),
    "positions": (["compact"],),
    "prune_layer": (-1, 1.0, True),
    "keep_ratio": (True, "0.5", float("nan")),
    "conv_mode": ("vicuna", 1),
}


@pytest.mark.parametrize("module", ["llava.eval.model_vqa_loader", "llava.eval.run_llava"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ATTRIBUTES.items() for value in values])
def test_attributes_of_an_object_are_refused_as_words_are(place, module, name, value):
    given = {"question_file": "q.jsonl", "image_folder": ".", "answers_file": "out/a.jsonl"}
    given |= {"image_file": "a.png", "query": "What?", name: value}
    flag = {"attn_implementation": "attn", "conv_mode": "conv-mode"}.get(name, name)
    with pytest.raises(InputError, match=f"--{flag}"):
        import_module(module).eval_model(Namespace(**given))
    assert not (place / "out").exists()


def test_what_a_library_says_of_a_checkpoint_is_one_line_with_its_name(place, monkeypatch):
    for error in (
        KeyError("rope"),
        RuntimeError("size\nmismatch"),
        AttributeError("x"),
        OSError(5, "I/O error", "w.bin"),
    ):

        def load(*args, error=error, **options):
            raise error

        monkeypatch.setattr(load_module, "load_pretrained_model", load)
        with pytest.raises(SystemExit, match="error: cannot load .*llava-shapes: ") as refused:
            PROGRAMS[6].run("--device", "cpu")
        assert "\n" not in refused.value.code


def programs():
    """Every module of this repository that is a program."""
    files = [*REPOSITORY.glob("llava/**/*.py"), *REPOSITORY.glob("scripts/**/*.py")]
    found = [file for file in files if "def build_parser" in file.read_text(encoding="utf-8")]
    return sorted(".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in found)


@pytest.mark.parametrize("module", programs())
def test_every_number_on_a_command_line_has_bounds(module):
    parser = import_module(module).build_parser()
    of_pruners = {*BUDGETS, *option_names()}  # a pruner checks its own
    loose = [action.dest for action in parser._actions if action.type in (int, float) and action.dest not in of_pruners]
    assert not loose


@pytest.mark.parametrize("module", programs())
def test_every_word_of_a_command_line_is_described(module):
    parser = import_module(module).build_parser()
    assert [action.dest for action in parser._actions if not action.help] == []
    parser.format_help()


def test_every_program_ends_without_a_traceback():
    files = [*REPOSITORY.glob("llava/**/*.py"), *REPOSITORY.glob("scripts/**/*.py")]
    files.remove(REPOSITORY / "llava/__main__.py")  # llava/cli.py is the program
    files.remove(REPOSITORY / "llava/pruners/__main__.py")  # imports nothing of ours, and reads no file
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    assert [str(file) for file, text in texts.items() if '"__main__"' in text and "run_program" not in text] == []
