"""How many questions the scripts ask at once."""

from llava.eval.__main__ import main

SHAPES, GQA = "bash scripts/v1_5/eval/shapes.sh 36", "bash scripts/v1_5/eval/gqa.sh 64"
HINT = "--batch_size 16 asks 16 at once"


def test_the_embedded_model_is_asked_32_unless_the_caller_says_otherwise_or_times_them(workplace):
    assert workplace.ask(SHAPES)["--batch_size"] == "32"
    for words in ("--batch_size 4", "--batch_size=4", "--profile", "--save-latency"):
        assert workplace.run(f"{SHAPES} {words}").returncode == 0
        assert "32" not in workplace.calls("model_vqa_loader")[-1].options


def test_another_checkpoint_is_asked_one_and_the_script_says_how_to_ask_more(workplace):
    for command, places in ((SHAPES, {"CKPT": "llava-v1.5-7b"}), (GQA, {})):
        said = workplace.run(command, **places)
        assert said.returncode == 0 and said.stderr.count(HINT) == 1
        call = workplace.asking()[-1]
        assert call.parser().parse_args(call.options).batch_size == 1


def test_nothing_is_said_where_the_caller_has_chosen(workplace):
    for words in (f"{GQA} --batch_size 1", f"{GQA} --profile", f"{GQA} --dry-run", SHAPES):
        said = workplace.run(words)
        assert said.returncode == 0 and HINT not in said.stderr


def test_a_sweep_asks_as_a_run_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["sweep", "shapes", "v1_5", "--pruners", "none,uniform", "--budgets", "9", "--limit", "3", "--device", "cpu"])
    lines = [
        line for path in tmp_path.rglob("*.jsonl") if "limit3" in path.name for line in path.read_text().split("\n")
    ]
    assert sum('"batch_size": 32' in line for line in lines) == 6 and HINT not in capsys.readouterr().err
