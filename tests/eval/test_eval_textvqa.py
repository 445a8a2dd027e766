import json

import pytest

from llava.command import run_program
from llava.eval.eval_textvqa import build_parser, eval_answers
from llava.eval.tasks.base import Given
from llava.eval.tasks.textvqa import TEXTVQA, question_of
from llava.records import InputError

SHORT = "Answer the question using a single word or phrase."
ANNOTATIONS = [
    {"image_id": "7f", "question": "What does the Sign say?", "answers": ["stop"] * 8 + ["STOP!", "go"]},
    {"image_id": "7f", "question": "what color is it?", "answers": ["red"] * 2 + ["blue"] * 8},
    {"image_id": "3a", "question": "what does the sign say?", "answers": ["1,000"] * 10},
]


def score(given, annotations):
    return TEXTVQA.score(Given(given, annotations=[annotations]))


def answer(image_id, question, text, ocr=None):
    tokens = "" if ocr is None else f"\nReference OCR token: {ocr}"
    return {"question_id": image_id, "prompt": f"{question}{tokens}\n{SHORT}", "text": text}


ANSWERS = [
    answer("7f", "what does the sign say?", "Stop.", "STOP, GO"),
    answer("7f", "what color is it?", "red", ""),
    answer("3a", "What does the sign say?", "1000"),
]


@pytest.mark.parametrize(
    "prompt",
    [
        f"Who is it?\nReference OCR token: a, b\n{SHORT}",
        f"Reference OCR token: a, b\nWho is it?\n{SHORT}",
        f"Who is it?\nReference OCR token: \n{SHORT}",
        f"Who is it?\n{SHORT}",
        "OCR tokens: a, b. Question: Who is it? Short answer:",
    ],
)
def test_the_question_is_found_in_every_form_of_prompt(prompt):
    assert question_of(prompt) == "Who is it?"


def test_a_question_of_two_lines_is_found_whole():
    assert question_of(f"Who is it?\nAnd why?\nReference OCR token: a\n{SHORT}") == "Who is it?\nAnd why?"


def test_a_prompt_without_an_instruction_is_refused():
    with pytest.raises(InputError, match="no question found in the prompt 'Who is it"):
        question_of("Who is it?")


def test_soft_accuracy_is_averaged_over_questions_that_share_image_ids():
    # nine of ten agree on "stop" once normalised: 1; two on "red": 0.6; all on 1000: 1
    result = score(ANSWERS, ANNOTATIONS)
    assert result.value == pytest.approx(100 * (1 + 0.6 + 1) / 3)
    assert (result.benchmark, result.count, result.missing, result.unparsable) == ("textvqa", 3, 0, 0)


def test_order_does_not_matter():
    assert score(ANSWERS[::-1], ANNOTATIONS).value == score(ANSWERS, ANNOTATIONS).value


def test_an_empty_answer_is_unparsable_and_a_skipped_image_missing():
    given = [ANSWERS[0], ANSWERS[1] | {"text": " "}, ANSWERS[2] | {"text": "", "metadata": {"error": "truncated"}}]
    result = score(given, ANNOTATIONS)
    assert (result.missing, result.unparsable, result.value) == (1, 1, pytest.approx(100 / 3))


def test_annotations_of_other_questions_are_refused():
    with pytest.raises(InputError, match=r"1 answered but not annotated.*such as \('7f', 'why\?'\)"):
        score([*ANSWERS[:2], answer("7f", "Why?", "red")], ANNOTATIONS)


def test_an_unfinished_run_is_refused():
    with pytest.raises(InputError, match=r"1 without an answer, such as \('3a', 'what does the sign say\?'\)"):
        score(ANSWERS[:2], ANNOTATIONS)


@pytest.fixture
def command(put):
    return [
        *("--annotation-file", put("val.json", {"data": ANNOTATIONS})),
        *("--result-file", put("answers/vtn_64.jsonl", ANSWERS)),
    ]


def test_the_program_prints_upstreams_lines_and_writes_the_result(command, tmp_path, capsys):
    output = tmp_path / "r.json"
    run_program(build_parser(), eval_answers, [*command, "--output", str(output)])
    assert capsys.readouterr().out.splitlines()[:3] == ["vtn_64", "Samples: 3", "Accuracy: 86.67%"]
    assert json.loads(output.read_text())["value"] == pytest.approx(86.6667, abs=1e-4)


def test_a_folder_of_answers_is_scored_file_by_file(command, put, tmp_path, capsys):
    put("answers/vtn_32.jsonl", [entry | {"text": "none"} for entry in ANSWERS])
    words = [*command[:2], "--result-dir", str(tmp_path / "answers")]
    run_program(build_parser(), eval_answers, words)
    printed = capsys.readouterr().out
    assert "vtn_32\nSamples: 3\nAccuracy: 0.00%" in printed and "vtn_64\nSamples: 3\nAccuracy: 86.67%" in printed
    with pytest.raises(SystemExit, match="--output takes one result, not those of 2"):
        run_program(build_parser(), eval_answers, [*words, "--output", "r.json"])


def test_no_answers_at_all_are_an_error(command):
    with pytest.raises(SystemExit, match="give --result-file"):
        run_program(build_parser(), eval_answers, command[:2])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"questions": []}, "no 'data' in it; there are questions"),
        ({"data": [{"image_id": "7f", "question": "?"}]}, "question 1: the key 'answers' is missing"),
        ({"data": [{"image_id": "7f", "question": "?", "answers": []}]}, "as in a test split"),
    ],
)
def test_an_annotation_file_of_another_kind_is_an_error(command, put, content, complaint):
    put("val.json", content)
    with pytest.raises(SystemExit, match=complaint):
        run_program(build_parser(), eval_answers, command)
