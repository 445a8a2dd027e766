"""lmms-eval itself: a task of its own with drawn scenes, in one process and in two."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (extra lmms)")

from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.models import get_model

from llava.lmms.adapter import LlavaPruned, VlmPruned

pytestmark = pytest.mark.lmms

PRUNING = {"pruner": "divprune", "visual_token_num": 36}
TASK = """
task: scenes_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: {output_type}
doc_to_visual: !function scenes.visuals
doc_to_text: "{{{{text}}}}"
{rest}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""
KINDS = {
    "answer": ("generate_until", "exact_match", 'doc_to_target: "{{answer}}"\ngeneration_kwargs:\n  max_new_tokens: 8'),
    "choose": ("multiple_choice", "acc", "doc_to_choice: choices\ndoc_to_target: gold"),
}
VISUALS = """from PIL import Image


def visuals(document):
    return [Image.open(document["image"]).convert("RGB")]
"""


@pytest.fixture(scope="module")
def tasks(scenes, tmp_path_factory) -> str:
    """A folder of two tasks: to answer the questions, and to choose between a wrong answer and the right one."""
    folder = tmp_path_factory.mktemp("tasks")
    documents = folder / "documents.jsonl"
    records = [
        {"image": str(scene.image), "text": scene.text, "answer": scene.answer, "choices": [scene.wrong, scene.answer]}
        for scene in scenes
    ]
    documents.write_text("".join(json.dumps(record | {"gold": 1}) + "\n" for record in records))
    (folder / "scenes.py").write_text(VISUALS)
    for name, (output_type, metric, rest) in KINDS.items():
        task = TASK.format(name=name, documents=documents, output_type=output_type, metric=metric, rest=rest)
        (folder / f"{name}.yaml").write_text(task)
    return str(folder)


def evaluate(tasks, checkpoint, output, *launcher, **options):
    """The results file and the answers of a run, in the order of the documents."""
    model_args = {"pretrained": checkpoint} | PRUNING | options
    command = [
        *(sys.executable, "-m", *launcher, "lmms_eval", "--model", "llava_pruned"),
        *("--model_args", ",".join(f"{key}={value}" for key, value in model_args.items())),
        *("--tasks", "scenes_answer,scenes_choose", "--include_path", tasks, "--batch_size", "4", "--device", "cpu"),
        *("--output_path", str(output), "--log_samples"),
    ]
    places = {"HF_HOME": str(output / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=os.environ | places, timeout=600, capture_output=True, text=True)
    found = [*output.glob("*/*_results.json"), *output.glob("*/*_samples_scenes_answer.jsonl")]
    # It may end well without results, having printed what went wrong.
    assert run.returncode == 0 and len(found) == 2, run.stdout + run.stderr
    results, samples = found
    lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda line: line["doc_id"])
    return json.loads(results.read_text()), lines


@pytest.fixture(scope="module")
def alone(tasks, llava_shapes, tmp_path_factory):
    return evaluate(tasks, llava_shapes, tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
class TestRun:
    def test_answers_and_chooses_right(self, alone):
        results, samples = alone
        assert results["results"]["scenes_answer"]["exact_match,none"] == 1
        assert results["results"]["scenes_choose"]["acc,none"] == 1
        assert len(samples) == 12

    def test_records_the_pruner_its_budget_and_what_was_kept(self, alone):
        results, samples = alone
        assert "pruner=divprune,visual_token_num=36" in results["config"]["model_args"]
        assert results["throughput"]["avg_visual_tokens"] == 36
        assert results["throughput"]["avg_visual_tokens_before"] == 144
        assert all(sample["token_counts"][0]["input_tokens"] > 36 for sample in samples)

    def test_in_two_processes_says_the_same(self, alone, tasks, llava_shapes, tmp_path):
        torchrun = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
        results, samples = evaluate(tasks, llava_shapes, tmp_path, *torchrun)
        assert results["results"]["scenes_choose"] == alone[0]["results"]["scenes_choose"]
        for key in ("doc_id", "filtered_resps", "token_counts"):
            assert [sample[key] for sample in samples] == [sample[key] for sample in alone[1]]


@pytest.fixture(scope="module")
def model(llava_shapes, scenes) -> LlavaPruned:
    model = LlavaPruned(llava_shapes, batch_size="4", device="cpu", **PRUNING)
    model.task_dict = {"task": {"test": scenes}}
    return model


def request(kind, *args):
    return Instance(kind, args, 0, {"task": "task", "doc_id": 0, "repeats": 1})


def visuals(scene):
    return scene.question().load_visuals()


class TestRequests:
    def test_are_answered_in_their_order_up_to_the_stop_strings(self, model, scenes):
        settings = [{"max_new_tokens": 8, "until": until} for until in (["\n\n"], ["e"])]
        requests = [
            request("generate_until", scene.text, settings[number % 2], visuals, number, "task", "test")
            for number, scene in enumerate(scenes)
        ]
        texts = [result.text for result in model.generate_until(requests)]
        expected = [scene.answer.split("e")[0] if number % 2 else scene.answer for number, scene in enumerate(scenes)]
        assert texts == expected and texts != [scene.answer for scene in scenes]

    def test_of_likelihoods_give_the_loss_that_the_metrics_minimise(self, model, scenes):
        requests = [
            request("loglikelihood", scene.text, f" {text}", visuals, number, "task", "test")
            for number, scene in enumerate(scenes)
            for text in (scene.wrong, scene.answer)
        ]
        results = model.loglikelihood(requests)
        assert all(isinstance(result, GenerationResult) for result in results)
        losses = [result.text[0] for result in results]
        assert all(right < wrong for wrong, right in zip(losses[::2], losses[1::2], strict=True))

    def test_of_several_rounds_are_refused_by_name(self, model):
        with pytest.raises(NotImplementedError, match="single rounds; these tasks have several: task"):
            model.generate_until_multi_round([request("generate_until_multi_round", "?")])


def test_lmms_eval_finds_both_models_by_name():
    assert get_model("llava_pruned") is LlavaPruned
    assert get_model("vlm_pruned") is VlmPruned


@pytest.mark.parametrize("cls", [LlavaPruned, VlmPruned])
def test_an_unknown_argument_is_refused_before_anything_is_loaded(cls):
    with pytest.raises(TypeError, match="has no argument prunner; its arguments are"):
        cls.create_from_arg_string("pretrained=/no/such/folder,prunner=cdpruner", {"device": "cpu"})


@pytest.mark.parametrize("name", ["batch_size", "max_batch_size"])
def test_a_batch_size_is_a_number(name):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not 'auto'"):
        LlavaPruned.create_from_arg_string("pretrained=/no/such/folder", {"device": "cpu", name: "auto"})


def test_a_batch_is_no_larger_than_lmms_evals_bound(llava_shapes):
    assert LlavaPruned(llava_shapes, batch_size="8", max_batch_size=2, device="cpu").batch_size == 2


def test_a_run_frees_the_model_at_its_end(llava_shapes):
    model = LlavaPruned(llava_shapes, device="cpu")
    model.accelerator = SimpleNamespace(free_memory=lambda: None)
    model.clean()
    assert not hasattr(model, "backend")
