"""Run everything that needs a GPU, most important first, and write what it gave to DIR/gpu.json after every part.

Each part is a process of its own with a limit in time; one that fails or finds something wrong is named and the others
go on. Weights are random and built in place: nothing is downloaded. Exit status 1 when a part failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from importlib import metadata, util
from pathlib import Path
from typing import IO, Any

import torch

from llava.bench.gpu import goals, tables
from llava.bench.gpu.parts import PARTS
from llava.bench.gpu.setting import TESTS
from llava.command import Number, Parser, check_values, run_program
from llava.outputs import nothing_left
from llava.provenance import PACKAGE, environment
from llava.records import InputError, check_writable, read_json, replace_file

LOG = "gpu.log"
MINUTES = 8.0
LEAST_S = 5.0  # no part says anything in less
DOCUMENT = PACKAGE.parent / "docs" / "performance.md"
Result = dict[str, Any]


def check(args: Namespace) -> None:
    """Refuse what cannot work, before anything runs.

    Raises:
        InputError: there is no GPU, no folder of that name, or no checkout around the package.
    """
    check_values(args, build_parser())
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("no GPU: torch sees no CUDA device (--device cpu --small tries the program without one)")
    if args.device == "cpu" and not args.small:
        raise InputError("--device cpu: only with --small; python -m llava.bench measures a CPU")
    if args.official_root and not args.official_root.is_dir():
        raise InputError(f"--official-root {args.official_root}: no such folder")
    if not TESTS.is_dir():
        raise InputError(f"{TESTS}: no such folder; run this from a checkout of the repository")
    check_writable(args.out / "gpu.json")


def hardware() -> dict[str, Any]:
    """The card and its driver; nothing where there is none."""
    if not torch.cuda.is_available():
        return {}
    card = torch.cuda.get_device_properties(0)
    memory = {"memory_gb": round(card.total_memory / 2**30, 1), "multiprocessors": card.multi_processor_count}
    return {"name": card.name, **memory, "capability": f"{card.major}.{card.minor}", "driver": _driver()}


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def meta(args: Namespace) -> Result:
    """Everything that a number depends on beside the code."""
    known = environment()
    known["commit"] = args.commit or known["commit"] or "unknown"
    known["versions"] |= {"cuda": torch.version.cuda, "triton": _version("triton")}
    return known | {"card": hardware(), "cpus": os.cpu_count(), "device": args.device, "small": args.small}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def run_part(name: str, args: Namespace, left_s: float, log: IO[str]) -> Result:
    """Run one part as a process for at most its limit and what is left of the whole time.

    Returns:
        ``status``, "done", "failed" or "missing", ``reason``, ``seconds``, ``rows`` and ``notes``.
    """
    result: Result = {"status": "missing", "reason": None, "seconds": 0.0, "rows": [], "notes": []}
    if absent := [package for package in PARTS[name].packages if util.find_spec(package) is None]:
        return result | {"reason": f"not installed: {', '.join(absent)}"}
    if left_s < LEAST_S:
        return result | {"status": "failed", "reason": "not started: the time was over"}
    limit = min(PARTS[name].limit_s, left_s)
    print(f"== {name} ==", file=log, flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        ended = _process(_command(name, args, file), limit, log)
        result |= read_json(file, dict) if file.is_file() else {}
    result["seconds"] = round(time.monotonic() - start, 1)
    done = result.pop("done", False) and not ended
    return result | {"status": "done" if done else "failed", "reason": result["reason"] or ended}


def _command(name: str, args: Namespace, file: Path) -> list[str]:
    command = [sys.executable, "-m", "llava.bench.gpu.parts", name, str(file), "--device", args.device]
    command += ["--small"] if args.small else []
    return command + (["--official-root", str(args.official_root.resolve())] if args.official_root else [])


def _process(command: list[str], limit: float, log: IO[str]) -> str | None:
    """Run a command and what it starts; return why it did not end by itself and well."""
    process = subprocess.Popen(
        command, cwd=PACKAGE.parent, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"ended after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"its process ended with status {status}; see {LOG}" if status else None


def gpu(args: Namespace) -> None:
    """Run the parts, or make the tables of a run that was."""
    if args.tables:
        tables.write(args.document, read_json(args.tables, dict))
        return
    file = args.out / "gpu.json"
    with nothing_left(file):
        check(args)
        results: Result = {"meta": meta(args), "parts": {}, "goals": []}
    run_parts(args, results, file)
    print(*tables.plain(results["goals"]), sep="\n")
    failed = [name for name, part in results["parts"].items() if part["status"] == "failed"]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; all that was measured is in {file}")


def run_parts(args: Namespace, results: Result, file: Path) -> None:
    """Fill ``results``, and write them after every part."""
    start = time.monotonic()
    with (args.out / LOG).open("w", encoding="utf-8") as log:
        for name in dict.fromkeys(args.parts):
            part = run_part(name, args, 60 * args.minutes - (time.monotonic() - start), log)
            results["parts"][name] = part
            results["goals"] = goals.reached(results["parts"])
            results["meta"]["seconds"] = round(time.monotonic() - start, 1)
            replace_file(file, json.dumps(results, indent=1) + "\n")
            print(_line(name, part), flush=True)


def _line(name: str, part: Result) -> str:
    words = f"{name}: {part['status']}, {len(part['rows'])} rows, {part['seconds']:.0f} s"
    return "; ".join([words, *filter(None, [part["reason"]]), *part["notes"]])


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(prog="python -m llava.bench.gpu", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("results/gpu"), metavar="DIR", help="gets gpu.json and gpu.log"
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="which, in this order")
    parser.add_argument("--minutes", type=Number(float, 0, above=True), default=MINUTES, help="for all parts together")
    parser.add_argument("--official-root", type=Path, help="folder of the methods' own repositories, timed in select")
    parser.add_argument("--commit", help="of a copy of the checkout that has no .git")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the program, with --small")
    parser.add_argument("--small", action="store_true", help="a tiny model: seconds, and numbers that mean nothing")
    parser.add_argument(
        "--tables", type=Path, metavar="FILE", help="run nothing; put a gpu.json's tables into the docs"
    )
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="whose tables --tables makes")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), gpu)
