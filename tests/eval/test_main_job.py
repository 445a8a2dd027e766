"""The main job on the embedded model: questions, answers, score, through the programs a user runs."""

import json
from dataclasses import replace

import pytest

from llava.eval import eval_shapes, model_vqa, model_vqa_loader
from llava.eval.dataset import QuestionDataset
from llava.eval.model_vqa_loader import CustomDataset
from llava.eval.options import load_model
from llava.eval.program import run_program
from llava.eval.queries import vqa_query
from llava.eval.records import read_jsonl
from llava.eval.runner import Run, generation_options, run
from llava.pruners import PRUNERS, resolve_pruner
from llava.shapes.benchmark import write_benchmark


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, split="test", num_questions=60, seed=11)
    return folder


@pytest.fixture(scope="module")
def embedded():
    return load_model(model_vqa_loader.build_parser().parse_args(["--device", "cpu"]), None)


def test_the_embedded_model_answers_the_benchmark(shapes, tmp_path, capsys):
    answers, result = tmp_path / "answers.jsonl", tmp_path / "result.json"
    words = f"--image-folder {shapes}/images --question-file {shapes}/shapes_test.jsonl --answers-file {answers}"
    options = "--temperature 0 --batch_size 20 --num_workers 0 --device cpu --pruner divprune --keep_ratio 0.25"
    run_program(model_vqa_loader.build_parser(), model_vqa_loader.eval_model, [*words.split(), *options.split()])
    words = f"--annotation-file {shapes}/shapes_test_labels.jsonl --result-file {answers} --output {result}"
    run_program(eval_shapes.build_parser(), eval_shapes.eval_answers, words.split())
    assert "visual tokens kept: 36.0" in capsys.readouterr().out
    scored = json.loads(result.read_text())
    assert (scored["count"], scored["missing"], scored["unparsable"]) == (60, 0, 0)
    assert set(scored["details"]["by_type"]) == {"color", "count", "exist", "number", "shape"}
    assert scored["value"] >= 50  # a guesser reaches about 20


@pytest.mark.parametrize("name", ["none", *PRUNERS])
def test_in_float32_no_answer_depends_on_the_batch_size(shapes, embedded, name):
    questions = read_jsonl(shapes / "shapes_test.jsonl", model_vqa_loader.QUESTION_KEYS)[:13]
    config = embedded.model.config
    dataset = CustomDataset(
        questions, shapes / "images", embedded.tokenizer, embedded.image_processor, config, "vicuna_v1"
    )
    embedded.model.set_pruner(resolve_pruner(name, visual_token_num=None if name == "none" else 9))
    answers = {}
    for batch_size in (1, 4, 13):
        plan, records = Run("shapes", {}, generation_options(max_new_tokens=6), batch_size), {}
        run(dataset, embedded.model, embedded.tokenizer, plan, records.__setitem__)
        in_order = [records[index] for index in range(13)]
        answers[batch_size] = [(r["question_id"], r["text"], r["metadata"]["visual_tokens"]) for r in in_order]
    assert answers[1] == answers[4] == answers[13]
    assert {tokens for *_, tokens in answers[1]} == {144 if name == "none" else 9}


@pytest.mark.parametrize("name", ["none", "cdpruner"])
def test_questions_without_an_image_share_a_batch_with_others_and_change_no_answer(shapes, embedded, name):
    questions = read_jsonl(shapes / "shapes_test.jsonl", model_vqa_loader.QUESTION_KEYS)[:6]
    samples = model_vqa.vqa_samples(questions, shapes / "images", vqa_query)
    samples = [replace(sample, image=None) if i in (0, 3, 4) else sample for i, sample in enumerate(samples)]
    parts = (embedded.tokenizer, embedded.image_processor, embedded.model.config, "vicuna_v1")
    embedded.model.set_pruner(resolve_pruner(name, visual_token_num=None if name == "none" else 9))
    answers = {}
    for batch_size in (1, 2, 6):
        plan, records = Run("shapes", {}, generation_options(max_new_tokens=6), batch_size), {}
        run(QuestionDataset(samples, *parts), embedded.model, embedded.tokenizer, plan, records.__setitem__)
        in_order = [records[index] for index in range(6)]
        answers[batch_size] = [(r["text"], r["metadata"]["visual_tokens"], r["metadata"]["tiles"]) for r in in_order]
    assert answers[1] == answers[2] == answers[6]
    kept = 144 if name == "none" else 9
    assert [counts for _, *counts in answers[1]] == [[0, 0], [kept, 1], [kept, 1], [0, 0], [0, 0], [kept, 1]]
