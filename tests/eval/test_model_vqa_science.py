import pytest
from PIL import Image

from llava.eval import model_vqa_science
from llava.eval.tasks.base import Given
from llava.eval.tasks.sqa import SQA
from llava.records import InputError

LETTER = "\nAnswer with the option's letter from the given choices directly."


def question(pid, text, image=None):
    record = {"id": pid, "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "B"}]}
    return record | ({"image": image} if image else {})


@pytest.fixture
def science(put, tmp_path):
    """Two questions with an image, in a mode that padding alone would destroy, and two without."""
    for pid in ("5", "7"):
        (tmp_path / "images" / pid).mkdir(parents=True)
        Image.new("P", (20, 10), 3).save(tmp_path / "images" / pid / "image.png")
    questions = [
        question("4", "Context: none.\nWhich one?\nA. red\nB. blue"),
        question("5", "<image>\nWhich one?\nA. red\nB. blue", "5/image.png"),
        question("6", "Which two?\nA. red\nB. blue"),
        question("7", "Context: hint.\nWhich one?\nA. red\nB. blue\n<image>", "7/image.png"),
    ]
    return {"question_file": put("q.json", questions), "image_folder": tmp_path / "images"}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_questions_without_an_image_are_answered_without_one(ask, science, batch_size):
    records = ask(model_vqa_science, **science, batch_size=batch_size)
    assert [record["question_id"] for record in records] == ["4", "5", "6", "7"]
    assert ["no image" in record["text"] for record in records] == [True, False, True, False]
    assert [record["metadata"]["visual_tokens"] for record in records] == [0, 5, 0, 5]


def test_the_recorded_prompt_has_the_image_mark_in_front_iff_there_is_an_image(ask, science):
    records = ask(model_vqa_science, **science, single_pred_prompt=True)
    assert [record["prompt"] for record in records] == [
        "Context: none.\nWhich one?\nA. red\nB. blue" + LETTER,
        "<image>\nWhich one?\nA. red\nB. blue" + LETTER,
        "Which two?\nA. red\nB. blue" + LETTER,
        "<image>\nContext: hint.\nWhich one?\nA. red\nB. blue" + LETTER,
    ]
    assert list(records[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]


def test_without_the_flag_nothing_is_added_to_the_question(ask, science):
    assert ask(model_vqa_science, **science)[1]["prompt"] == "<image>\nWhich one?\nA. red\nB. blue"


def test_the_text_tower_is_given_the_question_with_its_context_and_options(ask, science, echo_model):
    ask(model_vqa_science, **science, single_pred_prompt=True)
    assert echo_model.calls[3]["texts"][0] == "Context: hint.\nWhich one?\nA. red\nB. blue"


def test_the_model_reads_the_question_with_one_image_mark(science, ask, echo_model, llama_tokenizer, monkeypatch):
    prompts = []
    generate = echo_model.generate

    def spy(input_ids, **rest):
        prompts.append(llama_tokenizer.decode(input_ids[0][input_ids[0] >= 0]))
        return generate(input_ids, **rest)

    monkeypatch.setattr(echo_model, "generate", spy)
    ask(model_vqa_science, **science, single_pred_prompt=True)
    assert f"USER: Which two?\nA. red\nB. blue{LETTER} ASSISTANT:" in prompts[2]
    assert f"Which one?\nA. red\nB. blue{LETTER} ASSISTANT:" in prompts[1]


def test_the_scorer_reads_what_is_written(ask, science):
    records = ask(model_vqa_science, **science)
    problems = {pid: {"choices": ["red", "blue"], "answer": 1, "image": "x"} for pid in "4567"}
    assert SQA.score(Given(records, annotations=(list("4567"), problems))).count == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "no questions"),
        ({"id": "1"}, "expected a JSON array"),
        ([{"id": "1"}], "question 1: the key 'conversations' is missing"),
        ([{"id": "1", "conversations": []}], "question 1: expected a JSON object, found NoneType"),
        ([{"id": "1", "conversations": [{"value": 3}]}], "question 1: the value of 'value' is of the wrong type: 3"),
        ([question("1", "Q", 3)], "question 1: the value of 'image' is of the wrong type: 3"),
    ],
)
def test_a_broken_question_file_is_refused_before_the_model_loads(ask, put, loads, content, complaint):
    with pytest.raises(InputError, match=complaint):
        ask(model_vqa_science, question_file=put("q.json", content))
    assert loads == []


def test_llavas_defaults_and_flags_are_kept(ask, science):
    args = model_vqa_science.build_parser().parse_args(["--answer-prompter", "--single-pred-prompt"])
    assert (args.question_file, args.temperature, args.max_new_tokens) == ("tables/question.json", 0.2, 1024)
    record = ask(model_vqa_science, **science, conv_mode=None, model_path="llava-x")[0]
    assert record["metadata"]["run"]["conv_mode"] == "llava_v0"


def test_only_marks_that_stand_for_no_image_are_counted_as_lost(ask, put, science):
    questions = [
        question("4", "Which <image>?"),
        question("5", "<image>\nWhich?", "5/image.png"),
        question("7", "<image>\nWhich <image>?", "7/image.png"),
    ]
    records = ask(model_vqa_science, **science | {"question_file": put("marks.json", questions)})
    assert [record["metadata"].get("placeholders") for record in records] == [1, None, 1]
