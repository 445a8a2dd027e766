import runpy
from pathlib import Path

import pytest

from llava.bench import __main__ as bench
from llava.command import run_program
from llava.eval import demo
from llava.eval.pictures import summarize
from llava.eval.results.parsers import score_parser
from llava.eval.results.score import score_answers
from llava.eval.tasks import TASKS
from llava.outputs import nothing_left
from llava.records import InputError

SCRIPTS = Path(__file__).parents[3] / "scripts"
SCENE = Path(__file__).parents[3] / "docs" / "scene.png"
MAINS = ("eval_answers", "run_demo", "visualize", "summarize")


def test_a_refusal_takes_away_the_empty_files_and_folders_it_has_made(tmp_path):
    path = tmp_path / "new" / "newer" / "a.json"
    with pytest.raises(KeyboardInterrupt), nothing_left(path):
        path.parent.mkdir(parents=True)
        path.touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_holds_something_stays(tmp_path):
    old, written = tmp_path / "old.json", tmp_path / "new" / "written.json"
    old.touch()
    with pytest.raises(ValueError, match="refused"), nothing_left(old, written):
        written.parent.mkdir()
        written.write_text("{}")
        raise ValueError("refused")
    assert old.exists() and written.read_text() == "{}"


def test_an_output_in_a_home_of_nobody_is_an_error():
    with pytest.raises(InputError, match="~nobody-of-this-name"), nothing_left("~nobody-of-this-name/a.json"):
        pass


def test_an_empty_file_behind_a_link_goes_and_the_link_stays(tmp_path):
    kept, link = tmp_path / "kept.json", tmp_path / "link.json"
    link.symlink_to(kept)
    with pytest.raises(ValueError, match="refused"), nothing_left(link):
        link.touch()
        raise ValueError("refused")
    assert link.is_symlink() and not kept.exists()


def test_a_good_end_leaves_empty_files_alone(tmp_path):
    with nothing_left(tmp_path / "a.json"):
        (tmp_path / "a.json").touch()
    assert (tmp_path / "a.json").exists()


def of_shapes():
    return {"build_parser": lambda: score_parser(TASKS["shapes"]), "eval_answers": score_answers}


def of_script(name):
    return lambda: runpy.run_path(str(SCRIPTS / f"{name}.py"))


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (lambda: vars(summarize), "--eval-dir {0} --output {0}/new/t.md --html {0}/new/t.html"),
        (of_shapes, "--annotation-file {0}/none --result-file {0}/none --output {0}/new/r.json"),
        (lambda: vars(demo), "--output-dir {0}/new/results --model-path {0}/nowhere"),
        (
            of_script("visualize_diversity"),
            f"{SCENE} --output {{0}}/new/d.png --model-path {{0}}/x --keep_ratio .5 --pruner divprune",
        ),
        (
            of_script("visualize_selection"),
            f"{SCENE} what? --output {{0}}/new/s.png --model-path {{0}}/x --visual_token_num 9 --pruner divprune",
        ),
    ],
)
def test_a_program_that_is_refused_leaves_no_file_and_no_folder(program, words, tmp_path, monkeypatch):
    program = program()
    main = next(program[name] for name in MAINS if name in program)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: "):
        run_program(program["build_parser"](), main, words.format(tmp_path).split())
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("module", "work", "main", "words"),
    [
        (demo, "measure_and_draw", "run_demo", "--output-dir {0}/new"),
        (bench, "run_suites", "bench", "--json {0}/new/b.json --device cpu"),
    ],
)
def test_a_program_that_is_interrupted_before_its_first_result_leaves_nothing(
    monkeypatch, tmp_path, module, work, main, words
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, work, stop)
    with pytest.raises(KeyboardInterrupt):
        getattr(module, main)(module.build_parser().parse_args(words.format(tmp_path).split()))
    assert list(tmp_path.iterdir()) == []
