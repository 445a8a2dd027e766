"""From the words of an evaluation script to a score: look at the data, ask, merge, and score or say where to submit.

The questions are asked by processes of their own, one for each device that ``CUDA_VISIBLE_DEVICES`` names.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llava.eval.ask.plan import EVAL_DIR, Plan, plan_of
from llava.eval.ask.plan_video import video_plan
from llava.records import read_json, replace_file

SLOWLY = (
    "one question at a time, as LLaVA's programs ask: --batch_size 16 asks 16 at once, which is faster where memory"
    " allows; greedy answers in float32 do not depend on it"
)


def run(
    words: Sequence[str],
    do: Callable[[list[str]], None],
    environment: Mapping[str, str] = os.environ,
    python: str = sys.executable,
) -> None:
    """Do what the words of an evaluation script ask for.

    Args:
        words: ``TASK VERSION TOKENS [IMPORTANT_RATIO] [OPTION...]``, as ``plan_of`` reads them, or ``video`` and what
            ``video_plan`` reads; with ``--dry-run`` among them the commands that ask are printed instead.
        do: runs another program of ``llava.eval``, given its words.
        environment: says where checkpoints and data lie, and which devices there are.
        python: the interpreter of the processes that ask.

    Raises:
        SystemExit: wrong words, data that is missing, or a process that failed.
        InputError: no such benchmark or version.
    """
    dry, words = "--dry-run" in words, [word for word in words if word != "--dry-run"]
    plan = None if words[:1] == ["video"] else plan_of(words, environment)
    commands, answers = video_plan(words[1:], environment) if plan is None else (plan.asking, plan.answers)
    if dry:
        print(*(shlex.join(["python", *command]) for command in commands), sep="\n")
        return
    if plan is not None:
        prepare_data(plan, do)
        tell_of_speed(plan)
    with _ended_together() as processes:
        _ask(plan, [[python, *command] for command in commands], environment, processes)
    print(f"answers: {answers}", flush=True)
    if plan is not None:
        _finish(plan, do)


def prepare_data(plan: Plan, do: Callable[[list[str]], None]) -> None:
    """Look whether the data is there, and make the files that a run makes."""
    do(plan.doctor)
    if any(file.made_from is not None and not Path(plan.find(file)).is_file() for file in plan.files):
        plan.task.make(Path(EVAL_DIR, plan.task.folder), plan.data)


def tell_of_speed(plan: Plan) -> None:
    """Say how a run that was left to ask one question after the other is made faster."""
    if plan.one_by_one:
        print(SLOWLY, file=sys.stderr)


def _finish(plan: Plan, do: Callable[[list[str]], None]) -> None:
    if plan.scoring:
        do(plan.scoring)
    if plan.scoring[:1] != ["score"]:
        print(f"not scored here: submit {plan.submission}")


@contextmanager
def _ended_together() -> Iterator[list[subprocess.Popen]]:
    """Processes that do not outlive the block, however it ends; a signal to stop, or Ctrl-C, ends it."""
    processes: list[subprocess.Popen] = []

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask(
    plan: Plan | None,
    commands: Sequence[Sequence[str]],
    environment: Mapping[str, str],
    processes: list[subprocess.Popen],
) -> None:
    """One process per device; of several the first shows its progress, every one keeps a log, and all are waited for.

    Raises:
        SystemExit: one has failed.
    """
    if len(commands) == 1:
        processes.append(subprocess.Popen(commands[0], env=environment))
        code = processes[0].wait()
        if code < 0:  # as of a system that is out of memory
            print(f"the process that asks was ended by signal {-code}", file=sys.stderr)
        if code:
            sys.exit(code if code > 0 else 128 - code)
        return
    parts = [Path(part) for part in plan.parts]
    logs = [part.with_suffix(".log") for part in parts]
    parts[0].parent.mkdir(parents=True, exist_ok=True)
    # Each process takes its share of the cores; together they would otherwise start a thread per core each.
    threads = environment.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // len(commands)))
    for device, command, log in zip(plan.places.devices, commands, logs, strict=True):
        own = {**environment, "CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": threads}
        with log.open("wb") as file:
            output = subprocess.PIPE if not processes else file
            processes.append(subprocess.Popen(command, env=own, stdout=output, stderr=subprocess.STDOUT))
    _show(processes[0], logs[0])
    codes = [process.wait() for process in processes]
    if failed := [log for log, code in zip(logs, codes, strict=True) if code]:
        sys.exit("\n".join(f"a process failed, its log: ./{log}" for log in failed))
    _merge(parts, Path(plan.answers))


def _show(process: subprocess.Popen, log: Path) -> None:
    """Copy what a process prints to this one's output, and to its log, until it ends."""
    with log.open("wb", buffering=0) as file:
        for data in iter(lambda: process.stdout.read1(4096), b""):
            file.write(data)
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()


def _merge(parts: Sequence[Path], answers: Path) -> None:
    """Put the answers of all processes in one file, and say beside it that they are those of a single chunk.

    Whole, a rerun on one device finds them all, after a judge has graded say.
    """
    merged = answers.with_suffix(".part")
    with merged.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    merged.replace(answers)
    header = read_json(f"{parts[0]}.run", dict)
    header["settings"]["num_chunks"] = 1
    replace_file(f"{answers}.run", json.dumps(header, indent=1) + "\n")


def run_words(args: Namespace, do: Callable[[list[str]], None]) -> None:
    """``run`` as the command line calls it."""
    run(args.words, do)
