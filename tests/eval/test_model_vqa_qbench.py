import json

import pytest
import torch
from PIL import Image

from llava.eval import model_vqa_qbench
from llava.eval.ask.forms import UnpaddedDataset
from llava.eval.tasks.base import Given
from llava.eval.tasks.qbench import QBENCH, QUALITY, qbench_samples
from llava.records import InputError


@pytest.fixture
def qbench(put, tmp_path):
    questions = []
    for i, candidates in enumerate([["Good", "Poor", "Fair"], ["Yes", "No"]]):
        Image.new("RGB", (30, 10 + i), (90 * i, 9, 9)).save(tmp_path / f"{i}.jpg")
        questions.append(
            {"img_path": f"{i}.jpg", "question": f"How {i}?", "candidates": candidates, "correct_ans": candidates[0]}
        )
    return {"questions_file": put("llvisionqa_dev.json", questions), "image_folder": tmp_path}


def test_a_line_is_the_question_with_its_response(ask, qbench):
    records = ask(model_vqa_qbench, **qbench)
    keys = ["img_path", "question", "candidates", "correct_ans", "response", "answer_id", "model_id", "metadata"]
    assert [list(record) for record in records] == [keys, keys]
    questions = json.loads(open(qbench["questions_file"]).read())
    assert [{key: record[key] for key in keys[:4]} for record in records] == questions
    assert all(record["response"] for record in records)


@pytest.mark.parametrize(
    ("lang", "choose"), [("en", "Choose between one of the options as follows:"), ("zh", "在下列选项中选择一个:")]
)
def test_the_prompt_is_question_request_and_lettered_candidates(qbench, lang, choose):
    questions = QUALITY.read(qbench["questions_file"])
    first, second = qbench_samples(questions, "folder", lang)
    assert first.prompt == f"How 0?\n{choose}\nA. Good\nB. Poor\nC. Fair\n"
    assert second.prompt == f"How 1?\n{choose}\nA. Yes\nB. No\n"
    assert first.query == "How 0?\nA. Good\nB. Poor\nC. Fair\n"


def test_decoding_is_greedy_unless_asked_otherwise(ask, qbench, echo_model):
    args = model_vqa_qbench.build_parser().parse_args([])
    assert (args.temperature, args.max_new_tokens, args.lang) == (0, 1024, "en")
    ask(model_vqa_qbench, **qbench, temperature=args.temperature)
    assert echo_model.calls[0]["do_sample"] is False


def test_an_image_is_cropped_where_the_model_would_pad(llama_tokenizer, processor, model_config, tmp_path):
    red, wide = Image.new("RGB", (10, 10), (255, 0, 0)), Image.new("RGB", (30, 10), (0, 255, 0))
    wide.paste(red, (10, 0))
    questions = []
    for name, image in (("red.png", red), ("wide.png", wide)):
        image.save(tmp_path / name)
        questions.append({"img_path": name, "question": "Q", "candidates": []})
    samples = qbench_samples(questions, tmp_path)
    (_, square, _), (_, cropped, size) = UnpaddedDataset(samples, llama_tokenizer, processor, model_config, "vicuna_v1")
    assert size == (30, 10)
    assert torch.allclose(cropped[:, :, 3:5], square[:, :, 3:5], atol=0.05)  # padding would leave margins above, below
    assert model_config.image_aspect_ratio == "pad"


def test_the_scorer_reads_what_is_written_and_an_unreadable_image_counts_as_missing(ask, qbench):
    (qbench["image_folder"] / "1.jpg").unlink()
    records = ask(model_vqa_qbench, **qbench, on_error="skip")
    records[0]["response"] = "A."
    result = QBENCH.score(Given(records, annotations=[QUALITY.read(qbench["questions_file"])]))
    assert (result.value, result.count, result.missing) == (50, 2, 1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "no questions"),
        ([{"img_path": "1.jpg", "question": "Q"}], "question 1: the key 'candidates' is missing"),
        ([{"img_path": "1.jpg", "question": "Q", "candidates": "Good"}], "question 1: the value of 'candidates'"),
    ],
)
def test_a_broken_question_file_is_refused_before_the_model_loads(ask, put, loads, content, complaint):
    with pytest.raises(InputError, match=rf"q\.json.*{complaint}"):
        ask(model_vqa_qbench, questions_file=put("q.json", content))
    assert loads == []


def test_candidates_beyond_the_alphabet_are_counted(ask, put, qbench):
    question = {"img_path": "0.jpg", "question": "How?", "candidates": [str(i) for i in range(29)]}
    (record,) = ask(model_vqa_qbench, **qbench | {"questions_file": put("many.json", [question])})
    assert record["metadata"]["options_dropped"] == 3
