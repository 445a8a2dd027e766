"""Dry runs of the video script: the command that it comes to."""

import pytest

SCRIPT = "bash scripts/video/eval.sh"


@pytest.fixture
def asked(workplace):
    """Run the script on a file of questions and a folder of videos; returns its one call of Python."""

    def run(options, **environment):
        result = workplace.run(f"{SCRIPT} nextqa.jsonl 'some videos' {options}", **environment)
        assert result.returncode == 0, result.stderr
        (call,) = workplace.calls()
        assert f"answers: {call['--answers-file']}" in result.stdout
        return call

    return run


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ("64", "LLaVA-NeXT-Video-7B-hf/cdpruner/vtn_64"),
        ("64 --pruner divprune --batch_size 4", "LLaVA-NeXT-Video-7B-hf/divprune/vtn_64"),
        ("064", "LLaVA-NeXT-Video-7B-hf/cdpruner/vtn_64"),
        ("--keep_ratio .10 --pruner cdpruner", "LLaVA-NeXT-Video-7B-hf/cdpruner/ratio_0.1"),
        ("64 --theta .9 --theta .30", "LLaVA-NeXT-Video-7B-hf/cdpruner/vtn_64_theta0.3"),
        ("--keep_ratio=0.1 --pruner=vispruner", "LLaVA-NeXT-Video-7B-hf/vispruner/ratio_0.1"),
        ("064 --theta=.30 --theta .5", "LLaVA-NeXT-Video-7B-hf/cdpruner/vtn_64_theta0.5"),
        ("64 --budget_scope image", "LLaVA-NeXT-Video-7B-hf/cdpruner/vtn_64_budget_scopeimage"),
        ("--pruner none --for_get_frames_num 8", "LLaVA-NeXT-Video-7B-hf/none/full_for_get_frames_num8"),
    ],
)
def test_choices_with_other_answers_have_other_files(asked, options, answers):
    call = asked(options)
    assert call["--answers-file"] == f"./results/video/nextqa/{answers}.jsonl"
    assert call["--video-folder"] == "some videos"
    args = call.parser().parse_args(call.options)
    assert args.pruner == answers.split("/")[1]


def test_places_come_from_the_environment(asked):
    call = asked("64", CKPT_DIR="/models", CKPT="Qwen2.5-VL-7B-Instruct", OUTPUT_DIR="out")
    assert call["--model-path"] == "/models/Qwen2.5-VL-7B-Instruct"
    assert call["--answers-file"] == "out/nextqa/Qwen2.5-VL-7B-Instruct/cdpruner/vtn_64.jsonl"


def test_every_device_gets_a_process(asked):
    call = asked("64", CUDA_VISIBLE_DEVICES="0,2,3")
    assert call.module == "torch.distributed.run" and call["--nproc-per-node"] == "3"
    assert "video" in call.options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "QUESTIONS or VIDEOS is missing"),
        ("questions.jsonl", "QUESTIONS or VIDEOS is missing"),
        ("questions.jsonl .", "needs a budget"),
        ("questions.jsonl . 64 --pruner none", "none keeps every token"),
        ("questions.jsonl . 64 32", "unrecognized arguments: 32"),
        ("questions.jsonl . --keep_ratio nan", "--keep_ratio"),
        ("questions.jsonl . --visual_token_num 1.5", "--visual_token_num"),
    ],
)
def test_wrong_usage_is_named_before_anything_runs(workplace, arguments, message):
    result = workplace.run(f"{SCRIPT} {arguments}")
    assert result.returncode == 2 and message in result.stderr and "usage:" in result.stderr
    assert not workplace.calls()
