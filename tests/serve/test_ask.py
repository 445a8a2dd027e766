"""``llava ask``: the embedded model answers as ``llava.load`` does, on the screen or as lines of JSON."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

import llava
from llava.cli import main
from llava.convert.program import to_hf
from llava.serve import ask as program
from llava.shapes.benchmark import write_benchmark

QUESTIONS = ["How many shapes are there?", "Is there a purple diamond?"]
PRUNED = ["--pruner", "divprune", "--visual_token_num", "36", "--device", "cpu"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, split="test", num_questions=1, seed=0)
    (image,) = (folder / "images").iterdir()
    return str(image)


@pytest.fixture(scope="module")
def answers(picture):
    model = llava.load(device="cpu", pruner="divprune", visual_token_num=36)
    return [model.answer(picture, question, max_new_tokens=512) for question in QUESTIONS]


def test_each_question_is_answered_on_a_line_and_tokens_and_time_are_told_beside(picture, answers, capsys, caplog):
    with caplog.at_level("INFO"):
        main(["ask", picture, *QUESTIONS, *PRUNED])
    assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in answers)
    told = [record.message for record in caplog.records if "visual tokens" in record.message]
    assert len(told) == 2 and all(line.startswith("36 of 144 visual tokens, ") for line in told)
    assert [record.message for record in caplog.records].count(program.EMBEDDED) == 1


def test_json_is_one_line_for_each_question(picture, answers, capsys):
    main(["ask", picture, *QUESTIONS, *PRUNED, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answer"] for line in lines] == [answer.text for answer in answers]
    assert [line["question"] for line in lines] == QUESTIONS
    for line, answer in zip(lines, answers, strict=True):
        counted = ("visual_tokens", "tokens_before", "prompt_tokens", "new_tokens")
        assert {name: line[name] for name in counted} == {name: getattr(answer, name) for name in counted}
        assert (line["pruner"], line["options"]) == ("divprune", {"visual_token_num": 36})
        assert line["milliseconds"] > 0 and "lost" not in line


def test_an_answer_that_is_cut_short_says_so(picture, capsys):
    main(["ask", picture, QUESTIONS[0], "--device", "cpu", "--max_new_tokens", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["lost"] == {"unfinished": True}


def test_no_answer_is_told_beside_it():
    assert (
        program.told(program.Answer("", 4, tokens_before=9, seconds=0.5)) == "(no answer) 4 of 9 visual tokens, 500 ms"
    )


REFUSED = {
    "nowhere.png What?": "cannot read nowhere.png: no such file",
    "nowhere.mp4 What?": "cannot read nowhere.mp4: no such file",
    "a.png  ": "QUESTION is empty",
    "a.png What? --conv-mode vicuna": "--conv-mode 'vicuna' is unknown",
    "a.png What? --device cuda:9": "--device 'cuda:9': torch sees no such device",
    "a.png What? --pruner fastv --keep_ratio 0.5": "fastv needs prune_layer of 1 or more",
    "a.png What? --pruner divprune": "divprune needs a budget",
    "a.png What? --temperature 1e-40": "--temperature: 1e-40 is too close to 0",
    "a.png What? --model ": "--model-path is empty",
    "a.png What? --model nowhere/at/all": "cannot load nowhere/at/all",
    "a.png What? --pruner cls_topk --keep_ratio 0.5 --attention cls": "--attention is for models in Transformers'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_work_is_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    if "--attention" not in words and "nowhere/" not in words:
        monkeypatch.setattr(program, "load", lambda *args, **options: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit) as refused:
        main(["ask", *words.split(" ")])
    assert "\n" not in refused.value.code
    assert refused.value.code.startswith("llava ask: error: ") and REFUSED[words] in refused.value.code


@pytest.fixture(scope="module")
def hosted(llava_shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "hf"
    to_hf(Path(llava_shapes), folder)
    return str(folder)


@pytest.mark.usefixtures("can_prune")
def test_a_model_of_transformers_answers_too(hosted, picture, answers, capsys):
    main(["ask", picture, QUESTIONS[0], "--model", hosted, *PRUNED, "--json"])
    line = json.loads(capsys.readouterr().out)
    assert (line["answer"], line["visual_tokens"]) == (answers[0].text, 36)


@pytest.mark.usefixtures("can_prune")
@pytest.mark.parametrize("of_transformers", [False, True])
def test_a_conversation_is_about_the_picture_with_either_model(
    of_transformers, hosted, picture, answers, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTIONS[0]}\n\n"))
    model = ["--model", hosted] if of_transformers else []
    main(["chat", picture, *model, *PRUNED, "--temperature", "0"])
    assert f": {answers[0]}\n" in capsys.readouterr().out
