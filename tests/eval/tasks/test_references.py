"""Right answers as text, by the names that the scores of results have for the questions."""

import json

import pytest

from llava.eval.pictures.samples import name_of, read_truth
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import Given
from llava.eval.tasks.scores import written_name

TEXTS = [{"image_id": "a", "question": "What is WRITTEN?", "answers": ["exit", "exit", "exits"]}]
VOTES = [{"question_id": 7, "answers": [{"answer": "two"}, {"answer": "2"}, {"answer": "two"}]}]
ANNOTATIONS = {
    "shapes": [[{"question_id": 7, "answer": "ring", "category": "shape"}]],
    "gqa": [{"7": {"answer": "left", "isBalanced": True}}],
    "textvqa": [TEXTS],
    "vqav2": [VOTES],
    "sqa": [["7"], {"7": {"choices": ["north", "south"], "answer": 1}}],
    "seed": [{"questions": [{"question_id": "7", "answer": "C"}]}],
    "qbench": [[{"img_path": "a.png", "question": "Sharp?", "correct_ans": "No"}]],
    "pope": [[{"image": "a.png", "text": "Is there a cat?", "label": "no"}], [], []],
}
QUESTION = {"question_id": 7, "image": "a.png", "text": "Is there a cat?", "category": "random"}
ASKED = {
    "textvqa": {"question_id": "a", "prompt": "What is written?\nAnswer with a word."},
    "qbench": {"img_path": "a.png", "question": "Sharp?"},
}
RIGHT = {
    "shapes": "ring",
    "gqa": "left",
    "textvqa": "exit (2 of 3)",
    "vqav2": "two (2 of 3)",
    "sqa": "south",
    "seed": "C",
    "qbench": "No",
    "pope": "no",
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_the_right_answer_is_found_by_the_line_of_an_answer(name):
    task, line = TASKS[name], ASKED.get(name, {"question_id": 7})
    told = task.references(Given((), [QUESTION], ANNOTATIONS[name]))
    assert {written_name(key): text for key, text in told.items()} == {name_of(name, line): RIGHT[name]}


def test_mme_has_its_truth_beside_the_images(tmp_path):
    folder = tmp_path / "MME/MME_Benchmark_release_version/existence"
    folder.mkdir(parents=True)
    (folder / "0001.txt").write_text("Is there a dog? Please answer yes or no.\tYes\n")
    line = {"question_id": "existence/0001.jpg", "prompt": "Is there a dog? Please answer yes or no."}
    assert read_truth("mme", tmp_path, tmp_path) == {name_of("mme", line): "yes"}


def test_files_are_found_as_scoring_finds_them_and_may_be_absent(tmp_path):
    assert read_truth("shapes", tmp_path, tmp_path) == {} == read_truth("mmvet", tmp_path, tmp_path)
    folder = tmp_path / "shapes"
    folder.mkdir()
    label = {"question_id": 3, "answer": "cyan", "category": "color"}
    (folder / "shapes_test_labels.jsonl").write_text(json.dumps(label) + "\n")
    assert read_truth("shapes", tmp_path, tmp_path) == {"3": "cyan"}


def test_a_row_of_mmbench_is_not_told_the_score_of_all_its_rotations():
    assert name_of("mmbench", {"question_id": "241"}) != "241"
