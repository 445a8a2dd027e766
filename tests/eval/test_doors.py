"""Modules of LLaVA's names: they have LLaVA's flags, and the names that other programs import from them."""

import importlib

import pytest

ASKING = "--model-path --model-base --image-folder --answers-file --conv-mode"
SHARED = f"{ASKING} --question-file --num-chunks --chunk-idx --temperature --top_p --num_beams"
SPLITTING = "eval_model split_list get_chunk"
FLAGS = {
    "eval_pope": "--annotation-dir --question-file --result-file",
    "eval_science_qa": "--base-dir --result-file --output-file --output-result --split --options",
    "eval_textvqa": "--annotation-file --result-file --result-dir",
    "model_vqa": SHARED,
    "model_vqa_loader": f"{SHARED} --max_new_tokens",
    "model_vqa_mmbench": f"{SHARED} --all-rounds --single-pred-prompt --lang",
    "model_vqa_qbench": f"{ASKING} --questions-file --lang",
    "model_vqa_science": f"{SHARED} --answer-prompter --single-pred-prompt",
    "run_llava": "--model-path --model-base --image-file --query --conv-mode --sep --temperature --top_p --num_beams "
    "--max_new_tokens",
    "summarize_gpt_review": "--dir --version --select --files --ignore -d -v -s -f -i",
}
NAMES = {
    "m4c_evaluator": "EvalAIAnswerProcessor TextVQAAccuracyEvaluator",
    "model_vqa": SPLITTING,
    "model_vqa_loader": f"{SPLITTING} CustomDataset create_data_loader",
    "model_vqa_mmbench": SPLITTING,
    "model_vqa_qbench": "eval_model",
    "model_vqa_science": SPLITTING,
    "run_llava": "eval_model image_parser load_image load_images",
}


@pytest.mark.parametrize("door", FLAGS)
def test_a_door_has_llavas_flags(door):
    parser = importlib.import_module(f"llava.eval.{door}").build_parser()
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert set(FLAGS[door].split()) <= known
    assert parser.prog == f"python -m llava.eval.{door}"


@pytest.mark.parametrize("door", NAMES)
def test_a_door_has_the_names_that_are_imported_from_it(door):
    module = importlib.import_module(f"llava.eval.{door}")
    assert [name for name in NAMES[door].split() if not callable(getattr(module, name, None))] == []
