"""The benchmarks: how each is asked, and how its answers are scored."""

from llava.command import did_you_mean
from llava.eval.tasks.base import Task
from llava.eval.tasks.gqa import GQA
from llava.eval.tasks.llavabench import LLAVABENCH
from llava.eval.tasks.mmbench import MMBENCH, MMBENCH_CN
from llava.eval.tasks.mme import MME
from llava.eval.tasks.mmvet import MMVET
from llava.eval.tasks.pope import POPE
from llava.eval.tasks.qbench import QBENCH, QBENCH_ZH
from llava.eval.tasks.seed import SEED
from llava.eval.tasks.shapes import SHAPES
from llava.eval.tasks.sqa import SQA
from llava.eval.tasks.textvqa import TEXTVQA
from llava.eval.tasks.vizwiz import VIZWIZ
from llava.eval.tasks.vqav2 import VQAV2
from llava.records import InputError

TASKS = {
    task.name: task
    for task in (
        *(VQAV2, GQA, VIZWIZ, SQA, TEXTVQA, POPE, MME, MMBENCH, MMBENCH_CN, MMVET, SEED, LLAVABENCH),
        *(QBENCH, QBENCH_ZH, SHAPES),
    )
}
"""By the name of the script that runs it, in the order of the tables."""


def find_task(name: str, split: str = "") -> tuple[Task, str]:
    """A task and the split that is meant, its usual one if none is named.

    Raises:
        InputError: no such task or split; names the valid ones.
    """
    if name not in TASKS:
        raise InputError(f"unknown benchmark {name!r}; valid are {', '.join(TASKS)}{did_you_mean(name, TASKS)}")
    task, split = TASKS[name], split or TASKS[name].usual_split
    if split not in task.splits:
        raise InputError(f"{name} has no split {split!r}; valid are {', '.join(task.splits)}")
    return task, split
