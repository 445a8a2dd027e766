"""Dry runs of the lmms-eval scripts: the command that they come to."""

import pytest

IMAGES = "bash scripts/lmms_eval/divprune_paper.sh"
UNUSABLE = ["keep_ratio=nan", "keep_ratio=0", "visual_token_num=1.5", "important_ratio=7"]
QWEN = "bash scripts/lmms_eval/qwen2_5_vl.sh"


@pytest.fixture
def evaluated(workplace):
    """Run a script to its good end; returns its one call of Python and the model arguments in it."""

    def run(command, **environment):
        result = workplace.run(command, **environment)
        assert result.returncode == 0, result.stderr
        (call,) = workplace.calls()
        arguments = dict(pair.split("=", 1) for pair in call["--model_args"].split(","))
        assert len(arguments) == call["--model_args"].count(",") + 1
        return call, arguments

    return run


@pytest.mark.parametrize(
    ("command", "model", "expected"),
    [
        (IMAGES, "llava_pruned", {"pruner": "divprune", "keep_ratio": "0.098", "conv_template": "vicuna_v1"}),
        (f"{IMAGES} images", "llava_pruned", {"pretrained": "./checkpoints/llava-v1.5-7b"}),
        (
            f"{IMAGES} videos",
            "vlm_pruned",
            {"pruner": "divprune", "pretrained": "./checkpoints/LLaVA-NeXT-Video-7B-hf"},
        ),
        (QWEN, "vlm_pruned", {"pruner": "mfpruner", "cues": "qwen_release", "keep_ratio": "0.222"}),
        (f"{QWEN} cdpruner", "vlm_pruned", {"pruner": "cdpruner", "visual_token_num": "256", "max_pixels": "1016064"}),
    ],
)
def test_a_set_has_its_model_and_its_pruner(evaluated, command, model, expected):
    call, arguments = evaluated(command)
    assert call.module == "lmms_eval" and call["--model"] == model
    assert expected.items() <= arguments.items()


def test_the_images_of_divprune_are_the_eleven_sets_of_its_harness(evaluated):
    call, _ = evaluated(IMAGES)
    tasks = "coco2017_cap_val flickr30k_test gqa mmbench_en_dev mme mmmu_val nocaps_val ok_vqa_val2014 pope"
    assert call["--tasks"].split(",") == [*tasks.split(), "scienceqa_img", "seedbench"]


@pytest.mark.parametrize(
    ("given", "expected", "absent"),
    [
        ("pruner=cdpruner visual_token_num=64", {"pruner": "cdpruner", "visual_token_num": "64"}, "keep_ratio"),
        ("keep_ratio=0.5", {"pruner": "divprune", "keep_ratio": "0.5"}, "visual_token_num"),
        ("pruner=none", {"pruner": "none"}, "keep_ratio"),
        ("conv_template=llava_v1", {"conv_template": "llava_v1", "keep_ratio": "0.098"}, "visual_token_num"),
    ],
)
def test_arguments_of_the_caller_stand_for_the_usual_ones(evaluated, given, expected, absent):
    _, arguments = evaluated(f"{IMAGES} {given}")
    assert expected.items() <= arguments.items()
    assert absent not in arguments


def test_another_pruner_for_qwen_has_none_of_mfpruners_options(evaluated):
    _, arguments = evaluated(f"{QWEN} pruner=divprune")
    assert arguments["pruner"] == "divprune" and "cues" not in arguments


def test_options_reach_lmms_eval_behind_the_usual_ones(evaluated):
    call, _ = evaluated(f"{IMAGES} images pruner=none --tasks pope --batch_size 8 --gen_kwargs temperature=0")
    assert call.options[-6:] == ["--tasks", "pope", "--batch_size", "8", "--gen_kwargs", "temperature=0"]


def test_places_come_from_the_environment(evaluated):
    call, arguments = evaluated(IMAGES, CKPT_DIR="/big disk/models", CKPT="llava-v1.5-13b", OUTPUT_DIR="/big disk/out")
    assert arguments["pretrained"] == "/big disk/models/llava-v1.5-13b"
    assert call["--output_path"] == "/big disk/out/divprune_paper_images"


def test_every_device_has_a_process(evaluated):
    call, _ = evaluated(IMAGES, CUDA_VISIBLE_DEVICES="0,1,3")
    assert call.module == "torch.distributed.run" and call["--nproc-per-node"] == "3"
    assert call.options[3:6] == ["-m", "lmms_eval", "--model"]


@pytest.mark.parametrize("arguments", ["films", "--help", "images films", "pruner=none pope", *UNUSABLE])
def test_explains_itself_when_called_wrongly(workplace, arguments):
    result = workplace.run(f"{IMAGES} {arguments}")
    assert result.returncode == 2
    assert "usage: bash scripts/lmms_eval/divprune_paper.sh [SET]" in result.stderr
    assert "one of: images videos" in result.stderr
    assert workplace.calls() == []
