import json
from argparse import ArgumentParser, Namespace

import numpy as np
import pytest

from llava.asking.load import choose_pruner
from llava.command import with_defaults
from llava.eval.ask.options import describe_pruner
from llava.eval.model_vqa_loader import build_parser
from llava.pruners import PRUNERS


def parsed(*words):
    return build_parser().parse_args(words)


def test_every_option_the_caller_lacks_takes_its_default():
    parser = ArgumentParser()
    parser.add_argument("--kept", default=1)
    parser.add_argument("--needed", required=True)
    args = with_defaults(Namespace(needed="x", other=2), parser, required=("--needed",))
    assert vars(args) == {"kept": 1, "needed": "x"}


@pytest.mark.parametrize("name", [*PRUNERS])
def test_a_record_names_every_registered_pruner_and_its_budget(name):
    described = describe_pruner(choose_pruner(parsed("--pruner", name, "--keep_ratio", "0.25")))
    assert described["pruner"] == name and described["options"]["keep_ratio"] == 0.25


def test_numbers_of_numpy_are_recorded_as_pythons():
    args = with_defaults(Namespace(visual_token_num=np.int64(4), important_ratio=np.float32(0.5)), build_parser())
    described = describe_pruner(choose_pruner(args))
    assert json.loads(json.dumps(described))["options"] == {"visual_token_num": 4, "important_ratio": 0.5}
