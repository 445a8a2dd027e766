"""The words of an evaluation script as a plan: what is asked of which checkpoint, by which commands, on which files."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llava.command import did_you_mean
from llava.eval.ask.parsers import door_parser, script_parser
from llava.eval.ask.words import budget_named, device_groups, explained, given, pruner_of, with_budget
from llava.eval.results.setting import Setting, usual_layout, usual_template
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import DataFile, Task
from llava.records import InputError

EVAL_DIR = "./playground/data/eval"
VERSIONS = {"v1_5": ("llava-v1.5-7b", "native"), "v1_6": ("llava-v1.6-vicuna-7b", "fixed")}
"""The checkpoint of each version of LLaVA's scripts, and the layout of tiles."""
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc-per-node"),
    "accelerate": ("accelerate.commands.launch", "--num_processes"),
}
EMBEDDED_BATCH = 32
"""Questions that the embedded model is asked at once; other checkpoints are asked one, as in LLaVA's scripts."""
BATCHED = ("--batch_size", "--engine", "--profile", "--save-latency")
"""Options that say how many questions are asked at once, or that time them one by one."""
PLACED = ("--model-path", "--image-folder", "--answers-file", "--num-chunks", "--chunk-idx")
"""Options that a script gives to every program that asks, beside the one for the question file."""
USAGE = """{script} TOKENS [IMPORTANT_RATIO] [OPTION...]
  TOKENS           visual tokens kept per tile; leave it out with --keep_ratio R or --pruner none
  IMPORTANT_RATIO  share of the tokens that VisPruner picks by attention; implies --pruner vispruner
  OPTION           as of python -m llava.eval.{door}, e.g. --pruner divprune (default cdpruner),
                   --batch_size 8, --anyres native, --limit 100 for the first questions alone; questions are asked
                   one by one if --batch_size is not given, those of shapes 32 at once
  --split SPLIT    one of: {splits}
  --launcher X     torchrun or accelerate start the processes, in quotes with options of their own, e.g. --nnodes 2
  --engine vllm    vLLM answers; CKPT is in Transformers' format. --data-parallel-size N starts it N times, on one GPU
                   each, or on as many as --tensor-parallel-size says
  --dry-run        print the commands that ask
places, by environment: CKPT_DIR={places.checkpoints} CKPT={places.checkpoint} DATA_DIR={places.data}
"""


@dataclass(frozen=True)
class Places:
    """Where things lie, which environment variables say.

    Args:
        checkpoints, checkpoint: the folder of all checkpoints, ``CKPT_DIR``, and the one in it that is asked, ``CKPT``.
        data: the folder of all benchmarks' images and annotations, ``DATA_DIR``.
        devices: ``CUDA_VISIBLE_DEVICES``, each of which gets a process; without one, one process chooses.
    """

    checkpoints: str
    checkpoint: str
    data: str
    devices: tuple[str, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str], checkpoint: str) -> "Places":
        devices = environment.get("CUDA_VISIBLE_DEVICES", "").replace(",", " ").split() or ["0"]
        return cls(
            environment.get("CKPT_DIR") or "./checkpoints",
            environment.get("CKPT") or checkpoint,
            environment.get("DATA_DIR") or EVAL_DIR,
            tuple(devices),
        )


@dataclass(frozen=True)
class Plan:
    """What an evaluation script comes to.

    Args:
        options: the words for the program that asks.
        setting: what the result is measured with, which names its files.
        launcher: the words of ``--launcher``, or none.
        limit: how many questions are asked, the first of the file; None for all.
    """

    task: Task
    split: str
    places: Places
    options: tuple[str, ...]
    setting: Setting
    launcher: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def data(self) -> Path:
        """Images and annotations of the benchmark."""
        return Path(self.places.data, self.task.folder)

    @property
    def images(self) -> str:
        """The folder of the questions' images; "" where the questions hold them."""
        folder = f"{self.places.data}/{self.task.folder}"
        return f"{folder}/{self.task.images.path}".removesuffix("/.") if self.task.images else ""

    @property
    def which(self) -> str:
        """Split, checkpoint, pruner and setting, as the paths of answers, verdicts and uploads end."""
        return f"{self.split}/{self.places.checkpoint}/{name_of(self.setting, self.places.checkpoint)}"

    def path(self, kind: str, suffix: str = "") -> str:
        """Where the run's ``answers``, ``answers_upload`` or verdicts lie."""
        return f"{EVAL_DIR}/{self.task.folder}/{kind}/{self.which}{suffix}"

    @property
    def answers(self) -> str:
        """Where all answers go."""
        return self.path("answers", ".jsonl")

    @property
    def files(self) -> tuple[DataFile, ...]:
        """What is read of the benchmark besides its images."""
        return self.task.splits[self.split], *self.task.annotations

    def find(self, file: DataFile) -> str:
        """Where a file of the benchmark lies."""
        path = file.find(Path(EVAL_DIR, self.task.folder), self.data)
        return str(path) if path.is_absolute() else f"./{path}"

    @property
    def doctor(self) -> list[str]:
        """The look at the data, with which a run begins."""
        places = ["--eval-dir", EVAL_DIR, "--data-dir", self.places.data]
        return ["doctor", self.task.name, "--split", self.split, *places, "--any-size", "--quiet"]

    @property
    def asking(self) -> list[list[str]]:
        """The words for Python of each process that asks, the shares of the questions in their order."""
        form = self.task.asks
        checkpoint = f"{self.places.checkpoints}/{self.places.checkpoint}"
        command = ["-m", f"llava.eval.{form.door}", "--model-path", checkpoint]
        command += [form.question_flag, self.find(self.task.splits[self.split])]
        command += ["--image-folder", self.images] if self.images else []
        command += [*self.task.asked_with, *self.options]
        share = ["--num-chunks", str(len(self.parts)), "--chunk-idx"]
        return [
            [*self._start(), *command, "--answers-file", part, *share, str(index)]
            for index, part in enumerate(self.parts)
        ]

    @property
    def parts(self) -> list[str]:
        """Where each of several processes writes its answers; of one, where all answers go."""
        count = 1 if self.launcher else len(self.places.devices)
        folder = self.path("answers")
        return [f"{folder}/{count}_{i}.jsonl" for i in range(count)] if count > 1 else [f"{folder}.jsonl"]

    @property
    def verdicts(self) -> str:
        """What a judge says of the answers, where one does; "" else."""
        return self.path(self.task.judged, Path(self.task.verdicts.path).suffix) if self.task.judged else ""

    @property
    def scoring(self) -> list[str]:
        """The words that score the answers, or write what a server takes; none where it takes the answers, or would
        take those of all questions alone.
        """
        task, files = self.task, []
        scored = task.scored(self.split) and (not self.verdicts or Path(self.verdicts).is_file())
        if not scored and (not task.submit or self._too_few):
            return []
        for name in task.score_reads if scored else task.submit_reads:
            if name == "annotations":
                files += ["--annotation-file", *map(self.find, task.truth)]
            else:
                files += {"questions": ["--question-file", self.find(task.splits[self.split])]}.get(name, [])
                files += {"images": ["--data-dir", self.images]}.get(name, [])
        result = self.verdicts if scored and self.verdicts else self.answers
        output = self.path("answers", ".json") if scored else self.path("answers_upload", task.upload)
        files += ["--limit", str(self.limit)] if scored and self.limit else []
        return ["score" if scored else "submit", task.name, "--result-file", result, *files, "--output", output]

    @property
    def submission(self) -> str:
        """Which file goes where, for what is not scored here."""
        if self._too_few:
            return f"nothing, as {self.task.server} takes no answers to the first {self.limit} questions alone"
        upload = self.scoring[-1] if self.scoring else self.answers
        return f"{upload} to {self.task.server}" + (
            f", and put its {self.task.judged} at {self.verdicts}" * bool(self.verdicts)
        )

    @property
    def one_by_one(self) -> bool:
        """Whether questions are asked one at a time without the caller having said so."""
        return not any(given(self.options, option) for option in BATCHED)

    @property
    def _too_few(self) -> bool:
        return self.limit is not None and not self.task.judged

    def _start(self) -> list[str]:
        if not self.launcher:
            return []
        name, *words = self.launcher
        module, flag = LAUNCHERS[name]
        alone = ["--standalone"] if self.launcher == ("torchrun",) else []
        return ["-m", module, flag, str(len(self.places.devices)), *words, *alone]


def plan_of(words: Sequence[str], environment: Mapping[str, str]) -> Plan:
    """The plan of ``TASK VERSION TOKENS [IMPORTANT_RATIO] [OPTION...]``; a usage error ends the program.

    Raises:
        InputError: no such task or version.
    """
    task, version, words = _named(explained(words))
    usual, layout = VERSIONS[version]
    places = Places.of(environment, usual)
    embedded = bool(task.checkpoint) and not environment.get("CKPT")
    if embedded:
        places = replace(places, checkpoints=str(Path(task.checkpoint).parent), checkpoint=Path(task.checkpoint).name)
    script = f"bash scripts/{version}/eval/{task.name}.sh"
    usage = USAGE.format(script=script, door=task.asks.door, splits=" ".join(task.splits), places=places)
    if {"-h", "--help"} & {*words}:
        print(f"usage: {usage}")
        sys.exit()
    own = script_parser(task, script, usage)
    args, words = own.parse_known_args(budget_named(words))
    launcher = tuple(args.launcher.split())
    if launcher and launcher[0] not in LAUNCHERS:
        own.error(f"unknown launcher {args.launcher}; valid values: {' '.join(LAUNCHERS)}")
    template, engine = usual_template(places.checkpoint, task.name), given(words, "--engine")
    if args.data_parallel_size is not None and not engine:
        own.error("--data-parallel-size is for --engine vllm; CUDA_VISIBLE_DEVICES gives each device a process")
    usual_options = {"--pruner": pruner_of(words), "--anyres": "native" if engine else layout}
    usual_options |= {"--conv-mode": template, "--temperature": "0"}
    if embedded and not any(given(words, option) for option in BATCHED):
        usual_options["--batch_size"] = str(EMBEDDED_BATCH)
    for option, value in usual_options.items():
        if not given(words, option):
            words += [option, value]
    parser = door_parser(task.asks.door)
    parser.prog, parser.usage = script, usage
    for option in (*PLACED, task.asks.question_flag):
        if given(words, option):
            parser.error(f"{option} is not for this script, which sets it: what lies where, the environment says")
    if engine:
        groups = device_groups(own, places.devices, args.data_parallel_size, words)
        places = replace(places, devices=tuple(groups))
    asked = [*words, "--model-path", f"{places.checkpoints}/{places.checkpoint}"]
    limit = with_budget(own, parser.parse_args(asked)).limit
    from llava.eval.ask.options import CHOSEN  # imports torch, for which a word that is wrong need not wait

    setting = setting_of(parser, asked, places.checkpoint, task.name, (*CHOSEN, "engine", "allow_crop"), "attention")
    return Plan(task, args.split, places, tuple(words), setting, launcher, limit)


def name_of(setting: Setting, checkpoint: str) -> str:
    """Pruner, budget and what is not usual, as the path of the answers of a checkpoint ends."""
    seed = f"seed{setting.seed}" if setting.seed else ""
    layout = "" if setting.layout == usual_layout(checkpoint) else setting.layout
    return f"{setting.pruner}/" + "_".join(filter(None, [setting.label, seed, layout, setting.variant]))


def _named(words: Sequence[str]) -> tuple[Task, str, list[str]]:
    task, version, *words = [*words, "", ""][: max(2, len(words))]
    if task not in TASKS:
        raise InputError(f"unknown benchmark {task!r}; valid are {', '.join(TASKS)}{did_you_mean(task, TASKS)}")
    if version not in VERSIONS:
        fault = f"unknown version {version!r}" if version else f"VERSION is missing behind {task}"
        raise InputError(f"{fault}; valid are {', '.join(VERSIONS)}{did_you_mean(version, VERSIONS)}")
    return TASKS[task], version, words


def setting_of(
    parser: ArgumentParser, words: Sequence[str], checkpoint: str, task: str, chosen: Sequence[str], attention: str
) -> Setting:
    """What the answers will note of themselves that tells settings apart, known before a model is loaded.

    Args:
        parser: of the program that asks, given ``words``; a usage error of it ends the program.
        words: of a task, ``--model-path`` is among them: a checkpoint may say what a budget refers to.
        chosen: the flags whose values answers note.
        attention: what they call its implementation.
    """
    args = parser.parse_args(words)
    from llava.asking.load import check_options, choose_pruner
    from llava.eval.ask.options import describe_pruner

    try:
        pruner = choose_pruner(args)
        if task:
            check_options(args, pruner)
    except InputError as error:
        parser.error(str(error))
    names = (*chosen, "dtype", "model_base")
    run = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if getattr(args, "engine", None) is None:
        run[attention] = args.attn_implementation or "sdpa"
    run["device"] = args.device or "cuda"
    return Setting.of(describe_pruner(pruner) | {"run": run}, checkpoint, task)
