"""Several processes on one answers file: the echo model in processes that meet as torchrun's do."""

import json
import multiprocessing
import os
import signal
import socket
import time
from argparse import Namespace
from contextlib import contextmanager

import pytest
import torch

from llava.asking.processes import Processes, join
from llava.eval import model_vqa_loader
from llava.eval.ask import answers
from llava.eval.ask import program as evaluation
from llava.records import InputError

QUESTIONS = 7
REFUSED = 3
PATIENCE_S = 120


@pytest.fixture
def options(questions, tmp_path):
    """The command line of a run into ``a.jsonl``."""
    return Namespace(
        question_file=questions.file,
        image_folder=questions.images,
        answers_file=tmp_path / "run" / "a.jsonl",
        temperature=0,
        num_workers=0,
        device="cpu",
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def dying_after(count):
    """``appending`` for a process that is killed in the middle of its next line after ``count`` whole ones."""
    intact = answers.appending

    @contextmanager
    def appending(path):
        written = 0
        with intact(path) as write:

            def write_or_die(record):
                nonlocal written
                if written == count:
                    with path.open("a") as file:
                        file.write(json.dumps(record)[:40])
                    os.kill(os.getpid(), signal.SIGKILL)
                write(record)
                written += 1

            yield write_or_die

    return appending


def take_part(loaded, rank, count, port, args, dies_after, delay_s, errors):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)  # the thread pool of the process this one is forked from does not live on in it
    evaluation.load_model = lambda args, pruner: time.sleep(delay_s) or loaded
    if dies_after is not None:
        answers.appending = dying_after(dies_after)
    try:
        model_vqa_loader.eval_model(args)
    except InputError as error:
        errors.put(str(error))
        raise SystemExit(REFUSED) from error


@pytest.fixture
def launch(loaded, options):
    """Run some processes as a launcher does, which ends all as soon as one fails.

    ``launch(count, dying, late, **changes)``: ``dying`` gives for a rank the number of answers after which it is
    killed, ``late`` is a rank that takes a second longer than the others. Returns exit codes by rank, and the errors
    of processes that refused.
    """

    def call(count, dying=(), late=None, **changes):
        fork = multiprocessing.get_context("fork")
        errors, port, deaths, args = fork.Queue(), free_port(), dict(dying), Namespace(**vars(options) | changes)
        processes = [
            fork.Process(
                target=take_part, args=(loaded, rank, count, port, args, deaths.get(rank), float(rank == late), errors)
            )
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + PATIENCE_S
        while any(process.exitcode is None for process in processes):
            if any(process.exitcode for process in processes) or time.monotonic() > deadline:
                time.sleep(1)  # the others may be about to fail by themselves
                for process in processes:
                    process.kill()
            time.sleep(0.02)
        codes = [process.exitcode for process in processes]
        return codes, [errors.get(timeout=PATIENCE_S) for code in codes if code == REFUSED]

    return call


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(records):
    return [(record["question_id"], record["prompt"], record["text"]) for record in records]


@pytest.fixture
def alone(options, loads, tmp_path):
    """What one process answers."""
    path = tmp_path / "alone.jsonl"
    model_vqa_loader.eval_model(Namespace(**vars(options) | {"answers_file": path}))
    return asked(lines(path))


def test_two_processes_answer_what_one_does_in_question_order(launch, options, alone):
    assert launch(2, batch_size=2) == ([0, 0], [])
    assert asked(lines(options.answers_file)) == alone
    assert sorted(entry.name for entry in options.answers_file.parent.iterdir()) == ["a.jsonl", "a.jsonl.run"]


def test_the_main_process_waits_for_one_that_is_late(launch, options, alone):
    assert launch(2, late=1) == ([0, 0], [])
    assert asked(lines(options.answers_file)) == alone


def test_after_one_of_two_is_killed_three_complete_the_answers(launch, options, alone):
    codes, _ = launch(2, dying=[(1, 2)])
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    parts = [whole_lines(part) for part in sorted((options.answers_file.parent / "a").iterdir())]
    saved = {line["index"]: line["answer"] for part in parts for line in part}
    assert len(parts[1]) == 2 and 2 < len(saved) < QUESTIONS and options.answers_file.read_text() == ""
    assert launch(3) == ([0, 0, 0], [])
    records = lines(options.answers_file)
    assert asked(records) == alone
    assert {index: records[index] for index in saved} == saved


def whole_lines(path):
    *whole, _ = path.read_text().split("\n")
    return [json.loads(line) for line in whole]


@pytest.mark.parametrize(("first", "dying", "then"), [(2, [(0, 1), (1, 1)], 1), (1, [(0, 4)], 2)])
def test_one_process_completes_what_several_began_and_several_what_one_began(
    launch, options, alone, first, dying, then
):
    launch(first, dying)
    assert launch(then) == ([0] * then, [])
    assert asked(lines(options.answers_file)) == alone
    assert not (options.answers_file.parent / "a").exists()


def test_every_process_learns_why_the_answers_file_is_refused(launch, options):
    options.answers_file.parent.mkdir()
    options.answers_file.write_text('{"question_id": 1}\n')
    codes, errors = launch(2)
    assert codes == [REFUSED, REFUSED]
    assert all("does not say how the answers" in error for error in errors)


def test_more_processes_than_questions_are_no_trouble(launch, options, alone):
    assert launch(3, num_chunks=4, chunk_idx=1) == ([0] * 3, [])
    assert asked(lines(options.answers_file)) == alone[2:4]


def test_a_process_started_by_hand_is_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert join("cuda:1") == Processes(0, 1, "cuda:1")
    assert Processes().by_main(lambda: 7) == 7


def test_a_launcher_and_one_device_for_all_do_not_go_together(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--device cuda:1: the launcher gives every process its own device"):
        join("cuda:1")
