"""Whatever a scorer reads in another form than its own ends the program with one line that names the file."""

import json

import pytest

from llava.command import run_program
from llava.eval import eval_pope, eval_science_qa
from llava.eval.__main__ import main

ANSWER = {"question_id": "1", "prompt": "Is it?\nAnswer.", "text": "A"}
QUALITY = {"img_path": "a.jpg", "question": "?"}
CANDIDATES = QUALITY | {"candidates": ["x", "y"], "correct_ans": "x"}
SEED = {"question_id": 1, "question_type_id": 1, "data_type": "image", "answer": "A"}
LABEL = {"question_id": 1, "answer": "A", "category": "c"}
BALANCED = {"answer": "a", "isBalanced": True}

FORMS = [
    ("gqa", {"1": BALANCED | {"types": "query"}}, [ANSWER]),
    ("gqa", {"1": BALANCED | {"types": {"structural": ["query"]}}}, [ANSWER]),
    ("gqa", {"1": BALANCED | {"semantic": ["select"]}}, [ANSWER]),
    ("gqa", {"1": BALANCED | {"groups": {"global": []}}}, [ANSWER]),
    ("gqa", {"1": BALANCED | {"isBalanced": 1}}, [ANSWER]),
    ("gqa", {"1": [BALANCED]}, [ANSWER]),
    ("seed", {"question_type": {"Scene": [1]}, "questions": [SEED]}, [ANSWER]),
    ("seed", {"question_type": {"Scene": 1}, "questions": []}, [ANSWER]),
    ("seed", {"question_type": {"Scene": 1}, "questions": [1]}, [ANSWER]),
    ("seed", {"question_type": {"Scene": 1}, "questions": [SEED]}, [ANSWER | {"question_id": "9" * 5000}]),
    ("mmvet", {"v1_1": {"capability": [["rec"]]}}, {"v1_1": {"score": [1]}}),
    ("mmvet", {"v1_1": {"capability": [1]}}, {"v1_1": {"score": [1]}}),
    ("mmvet", {"v1_1": {"capability": ["rec"]}}, {"v1_1": {"score": []}}),
    ("qbench", [CANDIDATES | {"candidates": ["x", 3]}], [QUALITY | {"response": "A"}]),
    ("qbench", [CANDIDATES, CANDIDATES | {"correct_ans": "y"}], [QUALITY | {"response": "A"}] * 2),
    ("qbench", [CANDIDATES], [QUALITY | {"response": "A", "metadata": "error"}]),
    ("textvqa", {"data": [{"image_id": "1", "question": "Is it?", "answers": ["a", None]}]}, [ANSWER]),
    ("vqav2", {"annotations": [{"question_id": 1, "answers": ["a"]}]}, [ANSWER]),
    ("vizwiz", 3, [ANSWER]),
    ("shapes", "labels", [ANSWER]),
    (
        "shapes",
        [{"question_id": 1, "answer": "A", "category": "c"}],
        [ANSWER | {"metadata": {"visual_tokens": "9"}}],
    ),
    ("shapes", [LABEL | {"category": 1}], [ANSWER | {"metadata": {}}]),
    ("vqav2", {"annotations": [{"question_id": 1, "answers": [{"answer": "a"}]}]}, [ANSWER | {"metadata": 3}]),
]


@pytest.mark.parametrize(("task", "annotation", "given"), FORMS)
def test_another_form_is_one_line(put, tmp_path, task, annotation, given):
    suffix = "jsonl" if task == "shapes" and isinstance(annotation, list) else "json"
    words = ["--annotation-file", put(f"annotation.{suffix}", annotation)]
    words += ["--result-file", put("given.json" if isinstance(given, dict) else "given.jsonl", given)]
    with pytest.raises(SystemExit) as end:
        main(["score", task, *words, "--output", str(tmp_path / "r.json")])
    assert str(tmp_path) in str(end.value) and "\n" not in str(end.value)
    assert not (tmp_path / "r.json").exists()


def test_a_review_without_a_name_for_its_category_is_one_line(put):
    words = ["--result-file", put("r.jsonl", [{"question_id": 1, "tuple": [1, 2], "category": None}])]
    with pytest.raises(SystemExit, match=r"r\.jsonl, line 1: the value of 'category' is of the wrong type"):
        main(["score", "llavabench", *words])


@pytest.mark.parametrize("pids", ["1", [1], [["1"]], {"1": 0}])
def test_a_split_that_is_no_list_of_ids_is_one_line(put, tmp_path, pids):
    put("pid_splits.json", {"test": pids})
    put("problems.json", {"1": {"choices": ["a", "b"], "answer": 0}})
    words = ["--base-dir", str(tmp_path), "--result-file", put("a.jsonl", [ANSWER])]
    with pytest.raises(SystemExit, match=r"pid_splits\.json: not (a list of problem ids|of the release's form)"):
        run_program(eval_science_qa.build_parser(), eval_science_qa.eval_answers, words)


@pytest.mark.parametrize("category", ["a\0b", "../absent", "x" * 300])
def test_a_category_that_no_file_can_be_named_after_is_one_line(put, tmp_path, category):
    question = {"question_id": 1, "image": "a.jpg", "text": "Is it?", "category": category}
    words = ["--annotation-dir", str(tmp_path), "--question-file", put("q.jsonl", [question])]
    with pytest.raises(SystemExit, match="labels of .*, question by question: 1 answers to 0"):
        run_program(
            eval_pope.build_parser(), eval_pope.eval_answers, [*words, "--result-file", put("a.jsonl", [ANSWER])]
        )


@pytest.mark.parametrize("turn", ["0", None, 0.5, [0]])
def test_a_round_that_is_no_number_is_one_line(put, turn):
    table = put("mmbench.tsv", "index\tquestion\tA\tB\tC\tD\tanswer\n1\tWho?\ta\tb\t\t\tA\n")
    words = ["--annotation-file", table, "--result-file", put("a.jsonl", [ANSWER | {"round_id": turn}])]
    with pytest.raises(SystemExit, match=r"a\.jsonl, line 1: the value of 'round_id' is of the wrong type"):
        main(["score", "mmbench", *words])


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "latin-1"])
def test_answers_from_windows_are_scored_or_told(tmp_path, put, capsys, coding):
    file = tmp_path / "a.jsonl"
    text = json.dumps(ANSWER | {"text": "Café"}, ensure_ascii=False)
    file.write_bytes(f"{text}\r\n\r\n".encode(coding))
    note = {"question_id": 1, "answers": [{"answer": "café"}] * 10}
    words = ["--annotation-file", put("val.json", {"annotations": [note]}), "--result-file", str(file)]
    if coding == "utf-8-sig":
        main(["score", "vqav2", *words])
        assert "Overall accuracy: 100.00%" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match=r"a\.jsonl, line 1: not UTF-8.*; save it as UTF-8"):
            main(["score", "vqav2", *words])
