"""The program on results in a folder; its page, on answers of the embedded model, in test_page.py."""

import json
from dataclasses import asdict

import pytest

from llava.command import run_program
from llava.eval.pictures.summarize import build_parser, summarize
from llava.eval.results.setting import Setting


@pytest.fixture
def results(put, tmp_path):
    """GQA and POPE of two checkpoints."""
    for checkpoint in ("llava-v1.5-7b", "llava-v1.6-vicuna-7b"):
        layout = "fixed" if "v1.6" in checkpoint else "native"
        for place, value in (("none/full", 80.0), ("cdpruner/vtn_64", 72.0)):
            setting = asdict(Setting(*place.split("/"), layout, "", 0))
            for benchmark, folder in (
                ("gqa", "gqa/answers/llava_gqa_testdev_balanced"),
                ("pope", "pope/answers/llava_pope_test"),
            ):
                content = {"benchmark": benchmark, "metric": "", "value": value, "count": 10}
                content |= {"ci95": [value, value], "setting": setting}
                put(f"eval/{folder}/{checkpoint}/{place}.json", content)
    return tmp_path / "eval"


def run(*words):
    run_program(build_parser(), summarize, [str(word) for word in words])


def test_tables_are_printed_as_markdown_one_per_checkpoint_and_layout(results, capsys):
    run("--eval-dir", results)
    output = capsys.readouterr().out
    assert "## llava-v1.5-7b, native\n" in output and "## llava-v1.6-vicuna-7b, fixed\n" in output
    assert "| none | full |  | 80.0 (62.0, +18.0) | 80.0 (85.9, -5.9) | 80.0 (" in output
    assert "| 90.0 (" in output


def test_tables_are_written_in_the_format_asked_for(results, tmp_path, capsys):
    run(
        "--eval-dir",
        results,
        "--format",
        "json",
        "--output",
        tmp_path / "new/tables.json",
        "--benchmarks",
        "pope",
        "--published",
    )
    assert capsys.readouterr().out == ""
    tables = json.loads((tmp_path / "new/tables.json").read_text())["tables"]
    assert [table["columns"] for table in tables] == [["pope"], ["pope"]]
    assert any(row["pruner"] == "FastV" for row in tables[0]["rows"])


@pytest.mark.parametrize("words", [[], ["--html", "page.html"]])
def test_without_a_checkpoint_it_is_told_which_there_are(results, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="there are results of llava-v1.5-7b, llava-v1.6-vicuna-7b"):
        run("--eval-dir", results, *words, "--checkpoint")
    assert not (tmp_path / "page.html").exists()


def test_a_page_without_a_checkpoint_says_which_there_are(results, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run("--eval-dir", results, "--html", tmp_path / "page.html")
    told = "--checkpoint FOLDER also shows which tokens were kept, of llava-v1.5-7b, llava-v1.6-vicuna-7b"
    assert [record.message for record in caplog.records].count(told) == 1


def test_what_cannot_be_summarised_ends_the_program_with_the_reason(results, tmp_path):
    for words, fault in [
        (["--eval-dir", tmp_path / "nowhere"], "nowhere: no such folder"),
        (["--eval-dir", results, "--benchmarks", "mme"], "no results for mme; there are some for gqa, pope"),
        (
            ["--eval-dir", results, "--html", tmp_path / "p.html", "--checkpoint", "x"],
            "there are no results of it, but of llava",
        ),
    ]:
        with pytest.raises(SystemExit, match=fault):
            run(*words)
