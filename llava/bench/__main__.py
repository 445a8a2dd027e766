"""Measure what pruning costs and saves; ``llava.bench.parser`` says how."""

import json
import logging
import os
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from llava.bench import report, select
from llava.bench.flops import CONVENTIONS, SHAPES
from llava.bench.harness import threads
from llava.bench.parser import CPU_LAYERS, CPU_MEMORY_GB, MODEL_REPS, SELECT_REPS, SUITES, bench_parser
from llava.command import check_values, run_program
from llava.outputs import nothing_left
from llava.provenance import environment
from llava.pruners import resolve_pruner
from llava.records import InputError, check_writable, replace_file

SERVED_SHARE = 8
Rows = list[dict[str, Any]]

logger = logging.getLogger(__name__)


@dataclass
class Bench:
    """One run: a method per suite, and the models that are built when a suite first needs them."""

    args: Namespace

    @property
    def device(self) -> torch.device:
        return torch.device(self.args.device)

    @cached_property
    def model(self) -> Any:
        """The LLaVA of random weights, float16 on a GPU and bfloat16 on a CPU."""
        from llava.bench.models import random_llava

        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        logger.info("building a %s with %d layers", self.args.model, self.args.layers)
        return random_llava(SHAPES[self.args.model], self.args.layers, self.device, dtype, self.args.seed)

    def select(self) -> Rows:
        args = self.args
        width = SHAPES[args.model].width
        return list(select.run(width, self.device, args.reps or SELECT_REPS, args.seed, args.official_root))

    def clip(self) -> Rows:
        from llava.bench import clip

        return clip.run(self.model.get_vision_tower(), self.device, self.args.reps or MODEL_REPS, self.args.seed)

    def prefill(self) -> Rows:
        from llava.bench import prefill

        grids = (prefill.LLAVA_15, prefill.LLAVA_NEXT)[: 2 if self.device.type == "cuda" else 1]
        return prefill.run(self.model, SHAPES[self.args.model], self.device, self.args.reps or MODEL_REPS, grids)

    def e2e(self) -> Rows:
        from llava.bench import e2e

        return e2e.run(self.model, SHAPES[self.args.model], self.device, self.args.reps or MODEL_REPS, self.args.seed)

    def serve(self) -> Rows:
        """The embedded model; on a GPU the random one as well."""
        from llava.bench import serve
        from llava.model.builder import load_pretrained_model
        from llava.shapes import checkpoint_path

        _, embedded, _, _ = load_pretrained_model(checkpoint_path(), None, "llava-shapes", device=self.args.device)
        models = {"llava-shapes": embedded}
        if self.device.type == "cuda":
            models[self.args.model] = self.model
        rows = []
        for name, model in models.items():
            kept = model.get_vision_tower().num_patches // SERVED_SHARE
            pruner = resolve_pruner("cdpruner", visual_token_num=kept)
            rows += serve.run(model, name, pruner, self.device, self.args.memory_gb)
        return rows

    def meta(self) -> dict[str, Any]:
        """Everything that a number depends on beside the code."""
        args = self.args
        settings = {"device": args.device, "seed": args.seed, "model": args.model}
        settings |= {"layers": args.layers, "layers_of_model": SHAPES[args.model].layers}
        return environment() | settings | {"load": os.getloadavg()[0], "conventions": CONVENTIONS}


def check(args: Namespace) -> None:
    """Fill in what the device decides.

    Raises:
        InputError: for what is not there, or does not fit the model.
    """
    check_values(args, build_parser())
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device; valid here is cpu")
    shape = SHAPES[args.model]
    args.layers = args.layers or (shape.layers if on_gpu else CPU_LAYERS)
    if args.layers > shape.layers:
        raise InputError(f"--layers {args.layers}: a {args.model} has {shape.layers}")
    if args.official_root and not args.official_root.is_dir():
        raise InputError(f"--official-root {args.official_root}: no such folder")
    if args.memory_gb is None:
        args.memory_gb = torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else CPU_MEMORY_GB
    if args.json:
        check_writable(args.json)


def bench(args: Namespace) -> None:
    """Run the suites; after each, print its table and write everything so far."""
    outputs = [args.json] if args.json else []
    with nothing_left(*outputs):
        check(args)
        run_suites(args)


def run_suites(args: Namespace) -> None:
    """What ``bench`` does with options that are checked."""
    with threads(args.threads):
        run = Bench(args)
        results: dict[str, Any] = {"meta": run.meta(), "rows": [], "prefill": []}
        for suite in SUITES if "all" in args.suite else dict.fromkeys(args.suite):
            rows = getattr(run, suite)()
            print(report.table(suite, rows), end="\n\n", flush=True)
            results["prefill" if suite == "prefill" else "rows"] += rows
            if args.json:
                replace_file(args.json, json.dumps(results, indent=1) + "\n")


def build_parser() -> ArgumentParser:
    """The command line."""
    return bench_parser()


if __name__ == "__main__":
    run_program(build_parser(), bench)
