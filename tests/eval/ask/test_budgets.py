"""Budgets that follow the picture, from the command line to the table, on the embedded model."""

import json
from statistics import fmean

import pytest

from llava.command import run_program
from llava.eval import model_vqa_loader
from llava.eval.__main__ import main
from llava.eval.ask.plan import name_of, plan_of
from llava.eval.results.budgets import Kept
from llava.eval.results.setting import Setting
from llava.records import read_jsonl
from llava.selecting.references import read_erank_refs, store_erank_ref
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

REFERENCE = read_erank_refs(checkpoint_path())[16]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, split="test", num_questions=24, seed=11)
    return folder


def ask(shapes, answers, *words):
    """Answer the questions; returns the records."""
    files = f"--image-folder {shapes}/images --question-file {shapes}/shapes_test.jsonl --answers-file {answers}"
    options = "--temperature 0 --max_new_tokens 4 --num_workers 0 --device cpu --visual_token_num 16"
    run_program(
        model_vqa_loader.build_parser(), model_vqa_loader.eval_model, [*files.split(), *options.split(), *words]
    )
    return read_jsonl(answers, {})


@pytest.mark.parametrize("pruner", ["divprune", "uniform"])
@pytest.mark.parametrize("words", [["--budget", "spectral"], ["--budget", "mass", "--mass", "0.4"]])
def test_records_say_what_every_image_was_given_and_the_batch_changes_nothing(shapes, tmp_path, pruner, words):
    alone = ask(shapes, tmp_path / "one.jsonl", "--pruner", pruner, *words)
    together = ask(shapes, tmp_path / "many.jsonl", "--pruner", pruner, *words, "--batch_size", "8")
    assert [(line["text"], line["metadata"]["budgets"]) for line in alone] == [
        (line["text"], line["metadata"]["budgets"]) for line in together
    ]
    for line in alone:
        ((budget,), run) = line["metadata"]["budgets"], line["metadata"]["run"]
        assert budget["kept"] == line["metadata"]["visual_tokens"] == budget["k"]
        assert (budget["tiles"], budget["tokens"]) == (1, 144) and 4 <= budget["k"] <= 48
        assert run["budget"] == words[1] and ("erank" in budget) == (words[1] == "spectral")
        assert run.get("erank_ref") == (REFERENCE if words[1] == "spectral" else None)
    ks = [line["metadata"]["visual_tokens"] for line in alone]
    kept = Kept.of(line["metadata"] for line in alone)
    assert kept.mean == pytest.approx(fmean(ks)) and len(set(ks)) > 1


def test_a_fixed_budget_says_nothing_new(shapes, tmp_path):
    plain, said = (ask(shapes, tmp_path / name, *words) for name, words in (("a", []), ("b", ["--budget", "fixed"])))
    assert all("budgets" not in line["metadata"] for line in [*plain, *said])
    assert [line["text"] for line in plain] == [line["text"] for line in said]
    assert Setting.of(plain[0]["metadata"], "x", "shapes") == Setting.of(said[0]["metadata"], "x", "shapes")
    ask(shapes, tmp_path / "a", "--budget", "fixed")  # goes on with it: nothing is missing


def test_a_run_ends_with_what_its_images_kept(shapes, tmp_path, caplog):
    caplog.set_level("INFO", "llava")
    lines = ask(shapes, tmp_path / "a.jsonl", "--budget", "spectral")
    assert f"{Kept.of(line['metadata'] for line in lines)}" in caplog.text and "on average; 5, 50" in caplog.text
    caplog.clear()
    ask(shapes, tmp_path / "b.jsonl", "--budget", "fixed")
    assert "on average" not in caplog.text


def test_names_of_files_are_those_of_records(shapes, tmp_path):
    words = ["--pruner", "divprune", "--budget", "spectral"]
    (line, *_) = ask(shapes, tmp_path / "a.jsonl", *words)
    folder, checkpoint = checkpoint_path().rsplit("/", 1)
    plan = plan_of(["shapes", "v1_5", "16", *words, "--device", "cpu"], {"CKPT_DIR": folder, "CKPT": checkpoint})
    label = f"vtn_16_budgetspectral_erank_ref{REFERENCE:g}"
    assert name_of(plan.setting, checkpoint).startswith(f"divprune/{label}")
    assert Setting.of(line["metadata"], checkpoint, "shapes").label == plan.setting.label == label


def test_names_of_files_have_the_reference_of_the_checkpoint_that_is_asked(tmp_path):
    words = ["gqa", "v1_5", "64", "--budget", "spectral"]
    store_erank_ref(tmp_path, 64, {"erank_ref": 71.5})
    plan = plan_of(words, {"CKPT_DIR": str(tmp_path.parent), "CKPT": tmp_path.name})
    assert plan.setting.label == "vtn_64_budgetspectral_erank_ref71.5"


def test_a_checkpoint_without_a_reference_is_told_before_anything_is_asked(tmp_path, capsys):
    with pytest.raises(SystemExit):
        plan_of(["gqa", "v1_5", "64", "--budget", "spectral"], {"CKPT_DIR": str(tmp_path), "CKPT": "llava-v1.5-7b"})
    assert "--erank_ref is missing for budget 'spectral'" in capsys.readouterr().err


def test_another_reference_does_not_continue_a_run(shapes, tmp_path):
    ask(shapes, tmp_path / "a.jsonl", "--budget", "spectral")
    ask(shapes, tmp_path / "a.jsonl", "--budget", "spectral", "--erank_ref", str(REFERENCE))
    with pytest.raises(SystemExit, match="erank_ref: .*, now 3.5"):
        ask(shapes, tmp_path / "a.jsonl", "--budget", "spectral", "--erank_ref", "3.5")


def test_the_mean_over_layers_is_told_where_tokens_go_behind_one(shapes, tmp_path):
    (line, *_) = ask(shapes, tmp_path / "a.jsonl", "--pruner", "fastv", "--prune_layer", "1")
    assert Kept.of([line["metadata"]]).over_layers == pytest.approx((144 + 3 * 16) / 4)


def test_a_table_prints_the_rows_beside_each_other(shapes, tmp_path, capsys):
    folder = tmp_path / "eval" / "shapes" / "answers" / "shapes_test" / "llava-shapes"
    kept = {}
    for words in (["divprune", "--budget", "spectral"], ["divprune"], ["uniform"]):
        answers = folder / words[0] / f"{len(words)}.jsonl"
        lines = ask(shapes, answers, "--pruner", *words)
        kept[len(words)] = fmean(line["metadata"]["visual_tokens"] for line in lines)
        labels = f"--annotation-file {shapes}/shapes_test_labels.jsonl --result-file {answers}"
        main(["score", "shapes", *labels.split(), "--output", str(answers.with_suffix(".json"))])
    capsys.readouterr()
    main(["table", "--eval-dir", str(tmp_path / "eval"), "--format", "json"])
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    (budget,) = table["budgets"]
    assert budget["mean"] == pytest.approx(kept[3]) and budget["beside"]["random"] is None
    assert any("random" in note and "fixed budget" in note for note in table["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "spectral", "--visual_token_num", "15"], "budget 'spectral' needs visual_token_num of 16"),
        (["--erank_ref", "3"], "--erank_ref is for budget 'spectral'"),
        (["--mass", "0.5"], "--mass is for budget 'mass'"),
        (["--budget", "spectral", "--prune_layer", "1"], "it needs prune_layer 0"),
        (["--budget", "spectral", "--model-path", "elsewhere/model"], "--erank_ref is missing for budget 'spectral'"),
        (["--budget_split", "importance", "--budget_scope", "image"], "--budget_split 'importance' needs"),
    ],
)
def test_what_cannot_be_is_one_line(shapes, tmp_path, words, message):
    with pytest.raises(SystemExit) as ended:
        ask(shapes, tmp_path / "a.jsonl", *words)
    assert message in str(ended.value) and "\n" not in str(ended.value)
    assert not (tmp_path / "a.jsonl").exists()
