import base64
import io
import json
from dataclasses import asdict

import pytest
from PIL import Image

from llava.eval.ask.dataset import QuestionDataset, Sample
from llava.eval.ask.forms import UnpaddedDataset
from llava.eval.pictures.samples import answer_of, choose_questions, differ, read_answers, read_questions, reference_of
from llava.eval.results.collect import collect
from llava.eval.results.setting import Setting
from llava.records import InputError

SAMPLES = [Sample(i, f"Question {i}?", f"Question {i}?", "a.png") for i in range(4)]
NONE = ("none", "full")


def lines(*texts):
    return [{"question_id": i, "prompt": f"Question {i}?", "text": text} for i, text in enumerate(texts)]


def test_the_questions_that_most_settings_answer_otherwise_are_chosen():
    answers = {
        NONE: lines("red", "two", "yes", "no"),
        ("cdpruner", "vtn_9"): lines("red", "Three", "no", "No."),
        ("divprune", "vtn_9"): lines("red", "four", "yes", "no"),
    }
    assert choose_questions(answers, SAMPLES, 1) == ([1], 2)
    assert choose_questions(answers, SAMPLES, 2) == ([1, 2], 2)
    assert choose_questions(answers, SAMPLES, 9) == ([1, 2, 0, 3], 2)


def test_answers_are_compared_with_those_without_a_pruner_or_else_with_the_first():
    assert reference_of({("a", "vtn_9"): [], NONE: []}) == NONE
    assert reference_of({("b", "vtn_9"): [], ("a", "vtn_9"): []}) == ("b", "vtn_9")


def test_questions_without_an_image_are_not_shown():
    samples = [Sample(0, "Question 0?", "", None), *SAMPLES[1:]]
    assert choose_questions({NONE: lines("a", "b", "c", "d")}, samples, 9) == ([1, 2, 3], 0)


@pytest.mark.parametrize(
    ("one", "other", "are_other"), [("Red.", " red", False), ("red", "reddish", True), ("", ".", False)]
)
def test_case_space_and_closing_period_make_no_other_answer(one, other, are_other):
    assert differ(one, other) == are_other


@pytest.fixture
def stored(put, tmp_path):
    """Answers without a pruner, and at random with two seeds."""

    def store(**texts):
        base = "shapes/answers/shapes_test/llava-shapes"
        for place, answers in texts.items():
            path = f"{base}/{place.replace('__', '/')}"
            name, seed = place.partition("__")[0], int(place[-1]) if "seed" in place else 0
            setting = Setting(name, "full" if name == "none" else "vtn_9", "native", "", seed)
            result = {"benchmark": "shapes", "metric": "", "value": 1.0, "count": 4, "setting": asdict(setting)}
            put(f"{path}.json", result)
            put(f"{path}.jsonl", answers)
        return collect(tmp_path)

    return store


def test_of_several_seeds_the_first_ones_answers_are_read(stored):
    seeds = {"random__vtn_9_seed3": lines(*"abcd"), "random__vtn_9_seed2": lines(*"efgh")}
    answers = read_answers(stored(none__full=lines(*"ijkl"), **seeds), SAMPLES)
    texts = {place: "".join(map(answer_of, found, SAMPLES)) for place, found in answers.items()}
    assert texts == {NONE: "ijkl", ("random", "vtn_9"): "efgh"}


def test_answers_to_other_questions_are_refused(stored):
    with pytest.raises(InputError, match=r"full\.jsonl: 3 answers to 4 questions"):
        read_answers(stored(none__full=lines(*"abc")), SAMPLES)
    with pytest.raises(InputError, match=r"full\.jsonl, line 1: not an answer to question 0"):
        read_answers(stored(none__full=lines(*"abcd")[::-1]), SAMPLES)


def encoded_image():
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("column", "prompt", "query"),
    [
        ("shapes", "Red?\nAnswer the question using a single word or phrase.", "Red?"),
        ("mmvet", "Red?\nAnswer the question using a single word or phrase.", None),
        ("sqa", "Red?\nAnswer with the option's letter from the given choices directly.", "Red?"),
        (
            "mmbench",
            "Red?\nA. yes\nB. no\nAnswer with the option's letter from the given choices directly.",
            "Red?\nA. yes\nB. no",
        ),
        ("mmbench_cn (mmbench_test_cn_20231003)", "Red?\nA. yes\nB. no\n请直接回答选项字母。", "Red?\nA. yes\nB. no"),
        ("qbench", "Red?\nChoose between one of the options as follows:\nA. yes\nB. no\n", "Red?\nA. yes\nB. no\n"),
    ],
)
def test_questions_are_read_as_their_program_asks_them(put, tmp_path, column, prompt, query):
    short = "Red?\nAnswer the question using a single word or phrase."
    table = f"index\tquestion\thint\tA\tB\tC\tD\timage\n1\tRed?\t\tyes\tno\t\t\t{encoded_image()}\n"
    put("shapes/shapes_test.jsonl", [{"question_id": 1, "image": "a.png", "text": short}])
    put("mm-vet/llava-mm-vet.jsonl", [{"question_id": 1, "image": "a.png", "text": short}])
    put(
        "scienceqa/llava_test_CQM-I.json",
        [{"id": "1", "image": "1/image.png", "conversations": [{"value": "<image>\nRed?"}]}],
    )
    put("mmbench/mmbench_dev_20230712.tsv", table)
    put("mmbench_cn/mmbench_test_cn_20231003.tsv", table)
    put("qbench/llvisionqa_dev.json", [{"img_path": "a.png", "question": "Red?", "candidates": ["yes", "no"]}])
    questions = read_questions(column, tmp_path, tmp_path)
    (sample,) = questions.samples
    assert (sample.prompt, sample.query) == (prompt, prompt if query is None else query)
    assert questions.make_dataset is (UnpaddedDataset if column == "qbench" else QuestionDataset)


def test_questions_nobody_knows_of_are_an_error(tmp_path):
    for column, fault in (("mine", "unknown benchmark"), ("pope (mine)", "pope has no split .*llava_pope_test")):
        with pytest.raises(InputError, match=fault):
            read_questions(column, tmp_path, tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_questions("pope", tmp_path, tmp_path)


def test_an_answer_is_under_the_key_of_its_program():
    sample = Sample("a", "?", "?", "a.png", json.loads('{"img_path": "a"}'), "response")
    assert answer_of({"img_path": "a", "response": "A."}, sample) == "A."
