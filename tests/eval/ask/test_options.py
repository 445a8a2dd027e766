import json
from argparse import ArgumentParser, Namespace

import numpy as np
import pytest

from llava.asking import load
from llava.asking.load import choose_pruner, load_model, model_name
from llava.command import with_defaults
from llava.eval.ask.options import describe_pruner
from llava.eval.model_vqa_loader import build_parser
from llava.pruners import PRUNERS
from llava.records import InputError
from llava.shapes import checkpoint_path


def parsed(*words):
    return build_parser().parse_args(words)


def test_every_option_the_caller_lacks_takes_its_default():
    parser = ArgumentParser()
    parser.add_argument("--kept", default=1)
    parser.add_argument("--needed", required=True)
    args = with_defaults(Namespace(needed="x", other=2), parser, required=("--needed",))
    assert vars(args) == {"kept": 1, "needed": "x"}


def test_the_embedded_model_runs_where_no_path_is_given():
    assert load.model_path(parsed()) == checkpoint_path()
    assert model_name(parsed()) == "llava-shapes"
    assert model_name(parsed("--model-path", "~/x/checkpoint-7/")) == "x_checkpoint-7"


@pytest.mark.parametrize("name", [*PRUNERS])
def test_a_record_names_every_registered_pruner_and_its_budget(name):
    described = describe_pruner(choose_pruner(parsed("--pruner", name, "--keep_ratio", "0.25")))
    assert described["pruner"] == name and described["options"]["keep_ratio"] == 0.25


def test_numbers_of_numpy_are_recorded_as_pythons():
    args = with_defaults(Namespace(visual_token_num=np.int64(4), important_ratio=np.float32(0.5)), build_parser())
    described = describe_pruner(choose_pruner(args))
    assert json.loads(json.dumps(described))["options"] == {"visual_token_num": 4, "important_ratio": 0.5}


def test_the_builder_is_told_everything_the_command_line_says(monkeypatch):
    def load_pretrained_model(*args, **kwargs):
        given.append((args, kwargs))
        return "tokenizer", "model", "processor", 2048

    given = []
    monkeypatch.setattr(load, "load_pretrained_model", load_pretrained_model)
    words = "--model-path a/b --model-base c --device cpu --dtype bfloat16 --attn eager --anyres fixed"
    args = parsed(*words.split(), "--vision_dtype", "float32", "--budget_scope", "image", "--text_chunking", "bos_eos")
    args.prune_layer = 2
    assert load_model(args, None).name == "b"
    assert given == [
        (
            ("a/b", "c", "b"),
            {
                "device_map": None,
                "device": "cpu",
                "dtype": "bfloat16",
                "attn_implementation": "eager",
                "anyres": "fixed",
                "vision_dtype": "float32",
                "budget_scope": "image",
                "prune_layer": 2,
                "text_chunking": "bos_eos",
                "pruner": None,
            },
        )
    ]


def test_a_checkpoint_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=f"cannot load {tmp_path}/absent"):
        load_model(parsed("--model-path", str(tmp_path / "absent")), None)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_model(parsed("--model-path", str(tmp_path)), None)


def test_a_static_cache_and_pruning_inside_the_language_model_exclude_each_other():
    args = parsed("--pruner", "fastv", "--keep_ratio", "0.5", "--prune_layer", "2", "--static-cache")
    with pytest.raises(InputError, match="--static-cache .* --prune_layer"):
        load_model(args, choose_pruner(args))


def test_a_pruner_that_reads_the_language_model_is_refused_in_front_of_it():
    args = parsed("--pruner", "fastv", "--keep_ratio", "0.5")
    with pytest.raises(InputError, match="fastv needs prune_layer of 1 or more"):
        load_model(args, choose_pruner(args))
