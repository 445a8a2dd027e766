"""The benchmark's files: LLaVA's records, one picture per scene, the same bytes for the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.shapes.benchmark import main, write_benchmark
from llava.shapes.questions import QUESTION_TYPES, SHORT_ANSWER_PROMPT


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_pictures(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_benchmark(tmp_path / name, num_questions=30, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert not {data for name, data in first.items() if name.endswith("png")} & set(other.values())


def test_question_and_label_files_agree_line_by_line(tmp_path):
    write_benchmark(tmp_path, num_questions=57, seed=0)
    questions, labels = rows(tmp_path / "shapes_test.jsonl"), rows(tmp_path / "shapes_test_labels.jsonl")
    assert len(questions) == len(labels) == 57
    assert [q["question_id"] for q in questions] == [x["question_id"] for x in labels] == list(range(57))
    assert [q["category"] for q in questions] == [x["category"] for x in labels]
    assert {q["category"] for q in questions} == set(QUESTION_TYPES)
    assert all(list(q) == ["question_id", "image", "text", "category"] for q in questions)
    assert all(q["text"].endswith("\n" + SHORT_ANSWER_PROMPT) for q in questions)


def test_every_picture_named_is_there_and_no_two_are_alike(tmp_path):
    write_benchmark(tmp_path, split="val", num_questions=40, seed=1)
    named = {q["image"] for q in rows(tmp_path / "shapes_val.jsonl")}
    assert named == {path.name for path in (tmp_path / "images").iterdir()}
    pictures = [np.asarray(Image.open(tmp_path / "images" / name)) for name in sorted(named)]
    assert all(picture.shape == (96, 96, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(named)


def test_splits_with_the_same_seed_share_no_picture(tmp_path):
    for split in ("train", "val", "test"):
        write_benchmark(tmp_path / split, split=split, num_questions=40, seed=0)
    bytes_of = [{p.read_bytes() for p in (tmp_path / s / "images").iterdir()} for s in ("train", "val", "test")]
    assert not bytes_of[0] & bytes_of[2] and not bytes_of[1] & bytes_of[2] and not bytes_of[0] & bytes_of[1]


def test_a_longer_benchmark_begins_with_the_shorter_one(tmp_path):
    write_benchmark(tmp_path / "short", num_questions=20)
    write_benchmark(tmp_path / "long", num_questions=60)
    assert rows(tmp_path / "long" / "shapes_test.jsonl")[:20] == rows(tmp_path / "short" / "shapes_test.jsonl")


def test_bad_arguments_are_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="num_questions is 0"):
        write_benchmark(tmp_path, num_questions=0)
    with pytest.raises(ValueError, match="unknown split 'dev': one of train, val, test"):
        write_benchmark(tmp_path, split="dev")
    monkeypatch.setattr("sys.argv", ["benchmark", "--output-dir", str(tmp_path), "--split", "dev"])
    with pytest.raises(SystemExit):
        main()
    assert "invalid choice: 'dev'" in capsys.readouterr().err
