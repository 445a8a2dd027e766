"""The embedded model under torchrun: one of two processes is killed, three complete the answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava.command import run_program
from llava.eval import model_vqa_loader
from llava.shapes.benchmark import write_benchmark

QUESTIONS = 40
PATIENCE_S = 300
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


@pytest.fixture
def words(tmp_path):
    """The command line of a run into ``a.jsonl``."""
    write_benchmark(tmp_path, split="test", num_questions=QUESTIONS, seed=3)
    places = [*("--question-file", tmp_path / "shapes_test.jsonl"), *("--image-folder", tmp_path / "images")]
    options = "--pruner cdpruner --visual_token_num 16 --temperature 0 --max_new_tokens 4 --num_workers 1 --device cpu"
    return [*map(str, places), *options.split(), "--answers-file", str(tmp_path / "a.jsonl")]


def process_of_rank(launcher, rank):
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (found,) = [
        int(pid) for pid in children if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    return found


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(record["question_id"], record["prompt"], record["text"]) for record in records]


@pytest.mark.slow
def test_three_processes_complete_what_two_left_when_one_was_killed(words, tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    program = ["-m", "llava.eval.model_vqa_loader", *words]
    launcher = subprocess.Popen([*TORCHRUN, "2", *program], env=env)
    part = tmp_path / "a" / "rank00001.jsonl"
    wait_for(lambda: launcher.poll() is not None or (part.exists() and part.read_bytes().count(b"\n") >= 2))
    os.kill(process_of_rank(launcher, 1), signal.SIGKILL)
    assert launcher.wait(PATIENCE_S) != 0
    saved = sum(path.read_bytes().count(b"\n") for path in part.parent.iterdir())
    assert 2 <= saved < QUESTIONS and (tmp_path / "a.jsonl").read_text() == ""

    assert subprocess.run([*TORCHRUN, "3", *program], env=env, timeout=PATIENCE_S).returncode == 0
    run_program(
        model_vqa_loader.build_parser(), model_vqa_loader.eval_model, [*words[:-1], str(tmp_path / "alone.jsonl")]
    )
    assert asked(tmp_path / "a.jsonl") == asked(tmp_path / "alone.jsonl")
    assert len(asked(tmp_path / "a.jsonl")) == QUESTIONS and not part.parent.exists()
