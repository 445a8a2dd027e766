import json
from argparse import Namespace

import pytest
import torch

from llava.command import run_program
from llava.eval import model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_qbench, model_vqa_science, run_llava
from llava.eval.model_vqa_loader import CustomDataset, build_parser, create_data_loader, eval_model
from llava.records import InputError


@pytest.fixture
def evaluate(questions, tmp_path, loads):
    def call(**attributes):
        answers = tmp_path / "answers" / "echo.jsonl"
        places = {"question_file": questions.file, "image_folder": questions.images, "answers_file": answers}
        usual = {"num_workers": 0, "conv_mode": "vicuna_v1", "temperature": 0, "overwrite": True}
        eval_model(Namespace(**places | usual | attributes))
        return [json.loads(line) for line in answers.read_text().splitlines()]

    return call


def test_a_caller_that_knows_only_llavas_attributes_gets_plain_llava(evaluate, loads, questions):
    records = evaluate()
    ((args, pruner),) = loads
    assert pruner is None and args.anyres == "native" and args.batch_size == 1
    assert [record["question_id"] for record in records] == [line["question_id"] for line in questions.lines]


def test_class_attributes_serve_as_arguments(questions, tmp_path, loads):
    class Args:
        question_file, image_folder, num_workers = questions.file, questions.images, 0
        answers_file = tmp_path / "answers.jsonl"

    eval_model(Args)
    assert len(Args.answers_file.read_text().splitlines()) == 7


def test_metadata_says_which_pruner_ran_and_how(evaluate):
    metadata = evaluate(visual_token_num=36, important_ratio=0.25)[0]["metadata"]
    assert metadata["pruner"] == "vispruner"
    assert metadata["options"] == {"visual_token_num": 36, "important_ratio": 0.25}
    run = metadata["run"]
    assert (run["dtype"], run["attention"], run["anyres"]) == ("float32", "sdpa", "native")
    assert (run["conv_mode"], run["temperature"]) == ("vicuna_v1", 0)
    assert set(run["versions"]) == {"python", "torch", "transformers", "llava"} and "commit" in run


def test_a_run_without_pruner_says_none(evaluate):
    metadata = evaluate()[0]["metadata"]
    assert (metadata["pruner"], metadata["options"]) == ("none", {})


def test_the_chunks_of_a_run_are_the_run(evaluate, questions):
    whole = evaluate()
    parts = [record for k in range(4) for record in evaluate(num_chunks=4, chunk_idx=k)]
    assert [(part["question_id"], part["text"]) for part in parts] == [(r["question_id"], r["text"]) for r in whole]


def test_an_empty_chunk_writes_an_empty_file_and_loads_nothing(evaluate, loads):
    assert evaluate(num_chunks=20, chunk_idx=19) == [] and loads == []


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"pruner": "cdprune"}, "unknown pruner 'cdprune'.*cdpruner.*divprune"),
        ({"pruner": "divprune", "visual_token_num": 9, "important_ratio": 0.3}, "divprune has no option"),
        ({"pruner": "divprune", "visual_token_num": -1}, "visual_token_num"),
        ({"visual_token_num": 9, "keep_ratio": 0.5}, "visual_token_num and keep_ratio"),
        ({"pruner": "none", "visual_token_num": 9}, "none"),
        ({"visual_token_num": 9, "important_ratio": 1.5}, "important_ratio"),
        ({"conv_mode": "vicuna"}, "vicuna_v1"),
        ({"num_chunks": 2, "chunk_idx": 2}, "--chunk-idx"),
        ({"question_file": "absent.jsonl"}, "absent.jsonl"),
        ({"image_folder": "absent"}, "--image-folder absent"),
        ({"answers_file": "/dev/null/answers.jsonl"}, "cannot write /dev/null/answers.jsonl"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(evaluate, loads, attributes, complaint):
    with pytest.raises(InputError, match=complaint):
        evaluate(**attributes)
    assert loads == []


def test_a_broken_question_line_is_named_before_the_model_loads(evaluate, loads, questions):
    with questions.file.open("a") as file:
        file.write('{"question_id": 8, "image"')
    with pytest.raises(InputError, match=r"questions\.jsonl, line 8"):
        evaluate()
    assert loads == []


def test_a_failed_check_leaves_the_answers_of_the_last_run(evaluate, tmp_path):
    evaluate()
    with pytest.raises(InputError):
        evaluate(conv_mode="vicuna")
    assert len((tmp_path / "answers" / "echo.jsonl").read_text().splitlines()) == 7


def test_a_plain_model_whose_template_has_no_mmtag_variant_runs(evaluate):
    run = evaluate(model_path="llava-7b-plain")[0]["metadata"]["run"]
    assert run["conv_mode"] == "vicuna_v1"


def test_the_embedded_model_is_asked_in_the_template_it_was_trained_on(evaluate):
    assert evaluate(conv_mode=None)[0]["metadata"]["run"]["conv_mode"] == "vicuna_v1"
    assert evaluate(conv_mode=None, model_path="some/llava")[0]["metadata"]["run"]["conv_mode"] == "llava_v1"


def test_create_data_loader_yields_what_llavas_does(questions, loaded):
    parts = (loaded.tokenizer, loaded.image_processor, loaded.model.config)
    loader = create_data_loader(questions.lines, questions.images, *parts, num_workers=0, conv_mode="vicuna_v1")
    dataset = CustomDataset(questions.lines, questions.images, *parts, conv_mode="vicuna_v1")
    batches = list(loader)
    assert len(batches) == 7
    input_ids, images, sizes = batches[2]
    assert torch.equal(input_ids[0], dataset[2][0]) and images.shape == (1, 3, 8, 8) and sizes == ((10, 12),)
    with pytest.raises(ValueError, match="batch_size must be 1"):
        create_data_loader(questions.lines, questions.images, *parts, batch_size=2)


def test_llavas_defaults_are_kept():
    args = build_parser().parse_args([])
    assert (args.question_file, args.answers_file) == ("tables/question.jsonl", "answer.jsonl")
    assert (args.temperature, args.top_p, args.num_beams, args.max_new_tokens) == (0.2, None, 1, 128)
    assert (args.num_chunks, args.chunk_idx, args.image_folder) == (1, 0, "")


@pytest.mark.parametrize("words", [["--batch_size", "0"], ["--num_workers", "-1"], ["--max_new_tokens", "many"]])
def test_a_count_that_is_none_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(words)
    assert f"{words[0]}: '{words[1]}' is not an integer of at least" in capsys.readouterr().err


def test_a_repairable_error_ends_the_program_without_a_traceback(questions, tmp_path):
    words = ["--question-file", str(tmp_path / "absent.jsonl"), "--answers-file", str(tmp_path / "a.jsonl")]
    with pytest.raises(SystemExit, match=r"model_vqa_loader: error: cannot read .*absent\.jsonl"):
        run_program(build_parser(), eval_model, words)


LOADERS = [model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_qbench, model_vqa_science]


@pytest.mark.parametrize("program", [*LOADERS, run_llava])
def test_every_program_explains_itself(program):
    assert program.build_parser().format_help().startswith(f"usage: python -m {program.__name__}")


@pytest.mark.parametrize("program", LOADERS)
def test_every_loader_has_the_names_that_are_imported_from_llavas(program):
    assert callable(program.eval_model)
    assert program.split_list([1, 2, 3], 2) == [[1, 2], [3]] and program.get_chunk([1, 2, 3], 2, 1) == [3]
