import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.mme import MME, parse_answer, read_truth
from llava.records import InputError

SUFFIX = "\nAnswer the question using a single word or phrase."
CELEBRITY = "celebrity/questions_answers_YN"


@pytest.fixture
def data(put, tmp_path):
    """MME in both of its layouts, with one space or two before its instruction."""
    (tmp_path / "MME/celebrity/images").mkdir(parents=True)
    asks = " Please answer yes or no.\t"
    put("MME/existence/0001.txt", f"Is there a dog?{asks}Yes\nIs there a cat?{asks}No\n")
    put("MME/existence/0002.txt", f"Is there a bus?{asks}Yes\n\nIs there a car?{asks}No")
    put(f"MME/{CELEBRITY}/tt1.txt", f"Is it Ann? {asks}Yes\r\nIs it Bob? {asks}No\r\n")
    put("MME/code_reasoning/0001.txt", f"Is 1 printed?{asks}Yes\nIs 2 printed?{asks}No\n")
    put("MME/eval_tool/notes.txt", "no ground truth here")
    return str(tmp_path / "MME")


def score(given, data):
    return MME.score(Given(given, images=data))


def answers(*texts):
    asked = [
        *(("existence/0001.png", "Is there a dog?"), ("existence/0001.png", "Is there a cat?")),
        *(("existence/0002.png", "Is there a bus?"), ("existence/0002.png", "Is there a car?")),
        *(("celebrity/images/tt1.jpg", "Is it Ann?"), ("celebrity/images/tt1.jpg", "Is it Bob?")),
        *(("code_reasoning/0001.png", "Is 1 printed?"), ("code_reasoning/0001.png", "Is 2 printed?")),
    ]
    return [
        {"question_id": file, "prompt": question + SUFFIX, "text": text}
        for (file, question), text in zip(asked, texts, strict=False)
    ]


RIGHT = ("Yes", "No") * 4


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes", "yes"),
        ("NO.", "no"),
        ("Yes, no", "yes"),
        ("not", "no"),
        ("none", "no"),
        ("I know", "other"),
        ("know", "no"),
        ("unknown", "other"),
        ("\tyes\nit is", "yes"),
        (" YES", "yes"),
        ("a  no", "other"),
        ("  yes", "other"),
        ("\r\n yes", "other"),
        ("1.\r\nno", "other"),
        ("1\r\nno", "no"),
        ("", "other"),
        ("It is", "other"),
    ],
)
def test_the_first_four_characters_decide(text, read):
    assert parse_answer(text) == read


def test_ground_truth_is_read_from_both_layouts(data):
    truth = dict(read_truth(data))
    assert len(truth) == 8
    assert truth["existence", "0002", "Is there a car?"] == "no"
    assert truth["celebrity", "tt1", "Is it Ann?"] == "yes"


def test_ground_truth_without_image_folders_is_found_just_the_same(data, tmp_path):
    (tmp_path / "MME/celebrity/images").rmdir()
    assert len(read_truth(data)) == 8


def test_ground_truth_as_windows_saves_it_is_read_alike(data, put, tmp_path):
    truth = read_truth(data)
    for file in (tmp_path / "MME").rglob("0*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_truth(data) == truth
    file = tmp_path / "MME/existence/0001.txt"
    file.write_bytes("Is there a café? Please answer yes or no.\tYes\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"0001\.txt, line 1: not UTF-8"):
        read_truth(data)


def test_everything_right_is_200_a_category(data):
    result = score(answers(*RIGHT), data)
    assert (result.benchmark, result.metric, result.value, result.count) == ("mme", "perception score", 400.0, 8)
    assert (result.details["perception"], result.details["cognition"]) == (400.0, 200.0)
    assert result.ci95 == (400.0, 400.0)


def test_a_category_adds_accuracy_and_images_with_both_right(data):
    # existence: 3 of 4 questions, 1 of 2 images: 75 + 50; celebrity: 1 of 2, 0 of 1: 50; code: 0
    result = score(answers("yes", "no", "no", "no", "other", "no", "no", "yes"), data)
    assert result.value == 175.0
    assert result.details["by_category"]["existence"] == {"score": 125.0, "acc": 0.75, "acc_plus": 0.5, "count": 4}
    assert (result.details["cognition"], result.unparsable) == (0.0, 1)
    assert result.ci95[0] < 175 < result.ci95[1]


def test_categories_in_neither_answers_nor_data_are_left_out_and_listed(data):
    left_out = score(answers(*RIGHT), data).details["left_out"]
    assert len(left_out) == 11 and "OCR" in left_out and "existence" not in left_out


def test_the_order_of_the_answers_does_not_matter(data):
    given = answers("yes", "no", "no", "no", "other", "no", "no", "yes")
    assert score(given[::2] + given[1::2], data).value == 175.0


def test_prompts_that_keep_mmes_own_instruction_match_too(data):
    given = [a | {"prompt": a["prompt"].replace(SUFFIX, "  Please answer yes or no.")} for a in answers(*RIGHT)]
    assert score(given, data).value == 400.0


def test_answers_without_ground_truth_are_refused(data):
    given = answers(*RIGHT)
    given[0]["prompt"] = "Is there a cow?" + SUFFIX
    with pytest.raises(InputError, match=r"such as \('existence', '0001', 'Is there a cow\?'\)"):
        score(given, data)


def test_an_unfinished_run_is_refused(data):
    with pytest.raises(InputError, match="6 answers to 8 annotated questions; 2 without an answer"):
        score(answers(*RIGHT[:6]), data)


def test_an_image_with_one_question_is_refused(put, tmp_path):
    put("MME/color/1.txt", "Is it red? Please answer yes or no.\tYes")
    given = [{"question_id": "color/1.png", "prompt": "Is it red?" + SUFFIX, "text": "Yes"}]
    with pytest.raises(InputError, match="image '1' of color has 1 questions, not two"):
        score(given, tmp_path / "MME")


@pytest.mark.parametrize("question_id", ["colour/1.png", "1.png", 7])
def test_an_answer_of_no_category_is_refused(data, question_id):
    given = [answers("Yes")[0] | {"question_id": question_id}]
    with pytest.raises(InputError, match=r"is not CATEGORY/FILE; categories are existence, .*code_reasoning"):
        score(given, data)


def test_the_program_prints_totals_and_categories_and_writes(data, put, tmp_path, capsys, caplog):
    output = tmp_path / "mme.json"
    words = ["--data-dir", data, "--result-file", put("a.jsonl", answers(*RIGHT)), "--output", str(output)]
    main(["score", "mme", *words])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:5] == [
        *("=========== Perception ===========", "total score: 400.0", ""),
        *("\t existence  score: 200.0", "\t celebrity  score: 200.0"),
    ]
    assert "left out of the totals: count, position" in caplog.text
    assert json.loads(output.read_text())["details"]["cognition"] == 200.0


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("MME/color/1.txt", "Is it red? Yes\n", r"1\.txt, line 1: expected a question, a tab"),
        ("MME/color/1.txt", "Is it red?\tmaybe\n", r"1\.txt, line 1: expected a question, a tab"),
        ("MME/colour/1.txt", "Is it red?\tYes\n", r"--data-dir .*MME: no CATEGORY"),
    ],
)
def test_data_of_another_form_are_an_error(put, tmp_path, file, content, complaint):
    put(file, content)
    words = ["--data-dir", str(tmp_path / "MME"), "--result-file", put("a.jsonl", answers(*RIGHT))]
    with pytest.raises(SystemExit, match=complaint):
        main(["score", "mme", *words])


def test_the_questions_behind_the_perception_score_are_right_or_wrong(data):
    scored = score(answers("Yes", "Yes", "no", "No", "other", "No", "No", "No"), data)
    assert list(scored.scores.values()) == [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    assert "existence/0001/Is there a cat?" in scored.scores
