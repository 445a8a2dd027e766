"""The main job on the embedded model: questions, answers, score, through the programs a user runs."""

import json
from dataclasses import replace

import pytest

from llava.asking.batch import generation_options
from llava.asking.load import load_model
from llava.asking.prompts import vqa_query
from llava.command import run_program
from llava.eval import model_vqa_loader
from llava.eval.__main__ import main
from llava.eval.ask.dataset import QuestionDataset
from llava.eval.ask.loop import Run, run
from llava.eval.ask.specs import EMBEDDED
from llava.eval.model_vqa_loader import CustomDataset
from llava.eval.tasks.base import vqa_samples
from llava.eval.tasks.files import ASKED
from llava.model.stages import STAGES
from llava.pruners import PRUNERS, resolve_pruner
from llava.pruners.cues import INSIDE_CUES
from llava.records import InputError, read_jsonl
from llava.selecting.options import PruningOptions
from llava.shapes.benchmark import write_benchmark


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, split="test", num_questions=60, seed=11)
    return folder


@pytest.fixture(scope="module")
def embedded():
    return load_model(model_vqa_loader.build_parser().parse_args(["--device", "cpu"]), None)


def answer(shapes, embedded, name="cdpruner", questions=7, generation=None, **plan):
    """Records of the first questions in their order."""
    lines = read_jsonl(shapes / "shapes_test.jsonl", ASKED)[:questions]
    parts = (embedded.tokenizer, embedded.image_processor, embedded.model.config, "vicuna_v1")
    embedded.model.set_pruner(resolve_pruner(name, visual_token_num=None if name == "none" else 9))
    records = {}
    generation = generation_options(max_new_tokens=6) | (generation or {})
    plan = Run("shapes", {}, generation, **plan)
    dataset = CustomDataset(lines, shapes / "images", *parts)
    run(dataset, embedded, plan, records.__setitem__)
    return [records[index] for index in range(questions)]


def test_the_embedded_model_answers_the_benchmark(shapes, tmp_path, capsys):
    answers, result = tmp_path / "answers.jsonl", tmp_path / "result.json"
    words = f"--image-folder {shapes}/images --question-file {shapes}/shapes_test.jsonl --answers-file {answers}"
    options = "--temperature 0 --batch_size 20 --num_workers 0 --device cpu --pruner divprune --keep_ratio 0.25"
    run_program(model_vqa_loader.build_parser(), model_vqa_loader.eval_model, [*words.split(), *options.split()])
    words = f"--annotation-file {shapes}/shapes_test_labels.jsonl --result-file {answers} --output {result}"
    main(["score", "shapes", *words.split()])
    assert "visual tokens kept: 36.0" in capsys.readouterr().out
    scored = json.loads(result.read_text())
    assert (scored["count"], scored["missing"], scored["unparsable"]) == (60, 0, 0)
    assert set(scored["details"]["by_type"]) == {"color", "count", "exist", "number", "shape"}
    assert scored["value"] >= 50  # a guesser reaches about 20


@pytest.mark.parametrize("name", ["none", *PRUNERS])
def test_in_float32_no_answer_depends_on_the_batch_size(shapes, embedded, name):
    questions = read_jsonl(shapes / "shapes_test.jsonl", ASKED)[:13]
    config = embedded.model.config
    dataset = CustomDataset(
        questions, shapes / "images", embedded.tokenizer, embedded.image_processor, config, "vicuna_v1"
    )
    option, _, value = EMBEDDED.get(name, "").partition("=")
    options = {option: int(value)} if option else {}
    pruner = resolve_pruner(name, visual_token_num=None if name == "none" else 9, **options)
    layer = int(pruner is not None and bool(pruner.needs & INSIDE_CUES))
    embedded.model.pruning = PruningOptions(pruner, prune_layer=layer)
    answers = {}
    for batch_size in (1, 4, 13):
        plan, records = Run("shapes", {}, generation_options(max_new_tokens=6), batch_size), {}
        run(dataset, embedded, plan, records.__setitem__)
        in_order = [records[index] for index in range(13)]
        answers[batch_size] = [(r["question_id"], r["text"], r["metadata"]["visual_tokens"]) for r in in_order]
    assert answers[1] == answers[4] == answers[13]
    embedded.model.pruning = PruningOptions()
    assert {tokens for *_, tokens in answers[1]} == {144 if name == "none" else 9}


@pytest.mark.parametrize("name", ["none", "cdpruner"])
def test_questions_without_an_image_share_a_batch_with_others_and_change_no_answer(shapes, embedded, name):
    questions = read_jsonl(shapes / "shapes_test.jsonl", ASKED)[:6]
    samples = vqa_samples(questions, shapes / "images", vqa_query)
    samples = [replace(sample, image=None) if i in (0, 3, 4) else sample for i, sample in enumerate(samples)]
    parts = (embedded.tokenizer, embedded.image_processor, embedded.model.config, "vicuna_v1")
    embedded.model.set_pruner(resolve_pruner(name, visual_token_num=None if name == "none" else 9))
    answers = {}
    for batch_size in (1, 2, 6):
        plan, records = Run("shapes", {}, generation_options(max_new_tokens=6), batch_size), {}
        run(QuestionDataset(samples, *parts), embedded, plan, records.__setitem__)
        in_order = [records[index] for index in range(6)]
        answers[batch_size] = [(r["text"], r["metadata"]["visual_tokens"], r["metadata"]["tiles"]) for r in in_order]
    assert answers[1] == answers[2] == answers[6]
    kept = 144 if name == "none" else 9
    assert [counts for _, *counts in answers[1]] == [[0, 0], [kept, 1], [kept, 1], [0, 0], [0, 0], [kept, 1]]


@pytest.mark.parametrize("name", ["none", "cdpruner"])
def test_a_profile_shares_out_the_time_of_every_batch_but_the_first(shapes, embedded, name):
    plain = answer(shapes, embedded, name, batch_size=3)
    profiled = answer(shapes, embedded, name, batch_size=3, profile=True)
    assert [record["text"] for record in profiled] == [record["text"] for record in plain]
    assert not any("profile" in record["metadata"] for record in plain)
    found = [record["metadata"] for record in profiled if "profile" in record["metadata"]]
    assert len(found) == 4
    for metadata in found:
        stages = {stage: metadata["profile"][f"{stage}_ms"] for stage in STAGES}
        assert [stage for stage, ms in stages.items() if not ms > 0] == (["selection"] if name == "none" else [])
        rounding = 0.005 + 0.0005 * len(STAGES)
        assert sum(stages.values()) <= metadata["latency_ms"] + rounding
        assert 0 < metadata["profile"]["decode_ms_per_token"] <= stages["decode"]
    assert embedded.model.stopwatch is None and not embedded.model._forward_hooks


def test_profiling_ends_where_a_run_does(shapes, embedded, tmp_path):
    samples = vqa_samples([{"question_id": 0, "image": "absent.png", "text": "Why?"}], tmp_path, vqa_query)
    parts = (embedded.tokenizer, embedded.image_processor, embedded.model.config, "vicuna_v1")
    with pytest.raises(InputError, match=r"absent\.png"):
        run(QuestionDataset(samples, *parts), embedded, Run("shapes", profile=True), print)
    assert embedded.model.stopwatch is None and not embedded.model._forward_hooks


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_static_cache_changes_no_answer(shapes, embedded, batch_size, beams, positions):
    embedded.model.positions = positions
    options = {"max_new_tokens": 12, "min_new_tokens": 12}
    answers = [
        [
            record["text"]
            for record in answer(
                shapes,
                embedded,
                questions=3,
                batch_size=batch_size,
                generation=generation_options(num_beams=beams, static_cache=static) | options,
            )
        ]
        for static in (False, True)
    ]
    embedded.model.positions = "compact"
    assert answers[0] == answers[1] and all(answers[0])


def test_the_programs_profile_and_report(shapes, tmp_path, caplog):
    answers = tmp_path / "answers.jsonl"
    words = f"--image-folder {shapes}/images --question-file {shapes}/shapes_test.jsonl --answers-file {answers}"
    options = "--temperature 0 --batch_size 30 --num_workers 0 --device cpu --pruner divprune --visual_token_num 9"
    parser = model_vqa_loader.build_parser()
    run_program(parser, model_vqa_loader.eval_model, [*words.split(), *options.split(), "--profile", "--static-cache"])
    assert "milliseconds per question, over 30: vision " in caplog.text and "questions per second" in caplog.text
    metadata = [record["metadata"] for record in read_jsonl(answers, {"metadata": dict})]
    assert all(entry["run"]["static_cache"] for entry in metadata)
    caplog.clear()
    options += " --overwrite --profile --num-chunks 60"
    run_program(parser, model_vqa_loader.eval_model, [*words.split(), *options.split()])
    assert "nothing profiled: a single batch was answered" in caplog.text
    assert "static_cache" not in read_jsonl(answers, {"metadata": dict})[0]["metadata"]["run"]
