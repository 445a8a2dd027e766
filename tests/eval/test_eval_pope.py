import json

import pytest

from llava.command import run_program
from llava.eval.eval_pope import build_parser, eval_answers
from llava.eval.tasks.base import Given
from llava.eval.tasks.pope import POPE, ROWS, measures, says_yes
from llava.records import InputError

SUFFIX = "\nAnswer the question using a single word or phrase."
LABELS = {
    "popular": [
        {"image": "1.jpg", "text": "Is there a dog in the image?", "label": "yes"},
        {"image": "1.jpg", "text": "Is there a cat in the image?", "label": "no"},
        {"image": "2.jpg", "text": "Is there a dog in the image?", "label": "no"},
        {"image": "2.jpg", "text": "Is there a cat in the image?", "label": "yes"},
    ],
    "random": [
        {"image": "1.jpg", "text": "Is there a dog in the image?", "label": "yes"},
        {"image": "3.jpg", "text": "Is there a bus in the image?", "label": "no"},
    ],
}
QUESTIONS = [
    {"question_id": 10 * i + j, "image": label["image"], "text": label["text"] + SUFFIX, "category": category}
    for i, (category, labels) in enumerate(LABELS.items())
    for j, label in enumerate(labels)
]


def score(given, questions, labels):
    return POPE.score(Given(given, questions, [labels.get(category, []) for category in ROWS]))


def answers(*texts):
    return [
        {"question_id": question["question_id"], "prompt": question["text"], "text": text}
        for question, text in zip(QUESTIONS, texts, strict=False)
    ]


@pytest.mark.parametrize("text", ["No", "no", "No, there is not.", "There is not one", "no. Yes", "I see no dog"])
def test_an_answer_is_no_if_a_word_of_its_first_sentence_is(text):
    assert not says_yes(text)


@pytest.mark.parametrize("text", ["Yes", "", "NO", "no!", "No\nI do", "Nothing", "None", "Yes. No", "maybe"])
def test_everything_else_counts_as_yes(text):
    assert says_yes(text)


def test_f1_is_taken_per_category_and_averaged():
    # popular: one each of TP, FP, TN, FN, so F1 = 2 / 4; random: TP and TN only, so F1 = 1
    result = score(answers("Yes", "Yes", "No", "No", "Yes", "No"), QUESTIONS, LABELS)
    assert (result.benchmark, result.metric, result.value, result.count) == ("pope", "mean F1", 75.0, 6)
    popular, random = (result.details["by_category"][name] for name in ("popular", "random"))
    assert [popular[name] for name in ("TP", "FP", "TN", "FN")] == [1, 1, 1, 1]
    assert popular["f1"] == popular["yes_ratio"] == popular["accuracy"] == 50.0
    assert random["f1"] == 100.0
    assert result.ci95[0] <= 75.0 <= result.ci95[1] <= 100


def test_f1_differs_from_accuracy_where_the_errors_lean_one_way():
    # TP 3, FP 2, TN 4, FN 1: precision 3/5, recall 3/4, F1 = 2 * 0.45 / 1.35 = 2/3
    found = measures({"TP": 3, "FP": 2, "TN": 4, "FN": 1})
    assert found == pytest.approx({"accuracy": 0.7, "precision": 0.6, "recall": 0.75, "f1": 2 / 3, "yes_ratio": 0.5})


def test_never_saying_yes_gives_an_f1_of_nought():
    result = score(answers(*["No"] * 6), QUESTIONS, LABELS)
    assert (result.value, result.ci95) == (0.0, (0.0, 0.0))


def test_labels_are_matched_by_image_and_question_not_by_position():
    backwards = {name: labels[::-1] for name, labels in LABELS.items()}
    given = answers("Yes", "No", "No", "Yes", "Yes", "No")
    assert score(given[::-1], QUESTIONS, backwards).value == 100.0


def test_a_skipped_image_is_missing_and_wrong_whatever_the_label():
    given = answers("Yes", "No", "No", "Yes", "", "")
    for answer in given[4:]:
        answer["metadata"] = {"error": "no such file"}
    result = score(given, QUESTIONS, LABELS)
    random = result.details["by_category"]["random"]
    assert (result.missing, random["accuracy"], random["FP"], random["FN"]) == (2, 0.0, 1, 1)


def test_answers_with_neither_yes_nor_no_are_reported():
    result = score(answers("Yes", "No", "no dog.", "a cat", "", "No"), QUESTIONS, LABELS)
    assert result.unparsable == 2


def test_labels_of_the_changed_release_are_refused():
    more = LABELS | {"random": [*LABELS["random"], {"image": "9.jpg", "text": "Is there a cow?", "label": "no"}]}
    with pytest.raises(InputError, match=r"labels of 'random'.*2 answers to 3 .*commit e3e39262"):
        score(answers(*["Yes"] * 6), QUESTIONS, more)
    other = LABELS | {"random": [LABELS["random"][0], {"image": "9.jpg", "text": "Is there a cow?", "label": "no"}]}
    with pytest.raises(InputError, match=r"labels of 'random'.*1 without an answer, such as \('9\.jpg'"):
        score(answers(*["Yes"] * 6), QUESTIONS, other)


def test_a_label_that_is_both_is_refused():
    twice = [question | {"question_id": 99 + i} for i, question in enumerate(QUESTIONS) if not i]
    given = [*answers(*["No"] * 6), answers("No")[0] | {"question_id": 99}]
    labels = LABELS | {"popular": [*LABELS["popular"], LABELS["popular"][0] | {"label": "no"}]}
    with pytest.raises(InputError, match=r"labels of 'popular': \('1\.jpg', 'Is there a dog.* is both yes and no"):
        score(given, [*QUESTIONS, *twice], labels)


def test_an_unfinished_run_is_refused():
    with pytest.raises(InputError, match="5 answers to 6 annotated questions; 1 without an answer, such as '11'"):
        score(answers(*["Yes"] * 5), QUESTIONS, LABELS)


def test_answers_to_other_questions_with_the_same_ids_are_refused():
    given = answers(*["Yes"] * 6)
    given[1]["prompt"] = "What is this?" + SUFFIX
    with pytest.raises(InputError, match=r"question 1 is 'Is there a cat.*not 'What is this"):
        score(given, QUESTIONS, LABELS)


@pytest.fixture
def command(put, tmp_path):
    put("coco/README.txt", "not labels")
    for category, labels in LABELS.items():
        lines = "".join(json.dumps(label) + "\n" for label in labels)
        (tmp_path / f"coco/coco_pope_{category}.json").write_text(lines)
    return [
        *("--annotation-dir", str(tmp_path / "coco"), "--question-file", put("questions.jsonl", QUESTIONS)),
        *("--result-file", put("answers.jsonl", answers("Yes", "Yes", "No", "No", "Yes", "No"))),
    ]


def test_the_program_prints_upstreams_lines_and_writes_the_result(command, tmp_path, capsys):
    output = tmp_path / "pope.json"
    run_program(build_parser(), eval_answers, [*command, "--output", str(output)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:10] == [
        "Category: popular, # samples: 4",
        "TP\tFP\tTN\tFN",
        "1\t1\t1\t1",
        "Accuracy: 0.5",
        "Precision: 0.5",
        "Recall: 0.5",
        "F1 score: 0.5",
        "Yes ratio: 0.5",
        "0.500, 0.500, 0.500, 0.500, 0.500",
        "====================================",
    ]
    assert printed[-1] == "Average F1 score: 0.75"
    written = json.loads(output.read_text())
    assert list(written) == "benchmark metric value count missing unparsable ci95 details scores".split()


def test_a_category_without_labels_is_named(command, tmp_path):
    (tmp_path / "coco/coco_pope_random.json").unlink()
    with pytest.raises(SystemExit, match=r"cannot read .*coco_pope_random\.json"):
        run_program(build_parser(), eval_answers, command)


def test_a_mismatch_names_the_files(command, put):
    put("answers.jsonl", answers("Yes"))
    with pytest.raises(SystemExit, match=r"--result-file .*answers\.jsonl, --question-file .*questions\.jsonl"):
        run_program(build_parser(), eval_answers, command)


def test_every_question_is_right_or_wrong_whatever_its_category():
    scored = score(answers("Yes", "Yes", "No", "No", "no", "No"), QUESTIONS, LABELS)
    assert scored.scores == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0, "10": 0.0, "11": 1.0}
