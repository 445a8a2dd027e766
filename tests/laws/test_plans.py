"""The scripts of the benchmarks call the programs that are recorded, with the same words and paths."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from .recording import GOLDEN, Recording

RECORDED = GOLDEN / "plans.json"
REPOSITORY = Path(__file__).parents[2]
STUB = Path(__file__).with_name("python_notes.bash")
SCRIPTS = sorted(f"{path.parts[-3]}/{path.stem}" for path in REPOSITORY.glob("scripts/v1_*/eval/*.sh"))
EVAL = Path("playground/data/eval")
USUAL = "64"
LINES = {
    USUAL: {},
    "64 --pruner divprune": {},
    "--pruner none": {},
    "64 0.75": {},
    "64 --split OTHER": {},
    "64 --pruner=mfpruner": {"PLACED": "1"},
    "64 --num_workers 0": {"CUDA_VISIBLE_DEVICES": "0,1"},
    "64 --launcher torchrun --seed 2 --pruner random": {"CUDA_VISIBLE_DEVICES": "0,3"},
    "32 --launcher": {"LAUNCHER": "accelerate --num_machines 2"},
    "--keep_ratio 0.25 --pruner visionzip": {"CKPT": "my-13b", "CKPT_DIR": "/big/models", "DATA_DIR": "/big/data"},
    "128 --theta 0.3 --dtype bfloat16": {"CKPT": "llava-v1.6-mistral-7b"},
    "--keep_ratio=.10 --pruner cls_topk": {"CKPT": "llava-v1.6-34b"},
    "036 --pruner=vispruner --important_ratio .50": {},
    "64 --anyres native": {},
    "64 --anyres fixed --budget_scope image": {},
    "64 --conv-mode llava_v1 --temperature 0.2 --top_p 0.9 --num_beams 3 --max_new_tokens 20": {},
    "64 --pruner fastv --prune_layer 2 --positions original": {},
    "64 --batch_size 8 --num_workers 2 --device cpu --on-error skip --overwrite --save-latency --profile": {},
    "64 --model-base some/base --attn eager --vision_dtype float32 --text_chunking bos_eos": {},
    "64 --pruner divprune --pruner uniform": {},
    "": {},
    "64 --pruner none": {},
    "64 --split nowhere": {},
    "divprune": {},
}
"""Arguments of a script, and what its environment says; PLACED puts the files there that a script looks for."""
ALWAYS = [USUAL, "64 --split OTHER", "64 --pruner=mfpruner"]
"""What is looked at for every script where time matters, as it differs between benchmarks."""
WHOLE = ["v1_5/gqa", "v1_6/mmbench"]
"""Scripts that are looked at with all lines."""
OTHER_SPLITS = {
    "vqav2": "llava_vqav2_mscoco_test2015",
    "sqa": "llava_test_CQM-A",
    "mmbench": "mmbench_test_20230712",
    "mmbench_cn": "mmbench_test_cn_20231003",
    "qbench": "test",
    "qbench_zh": "zh_test",
}
WHICH = "{}/{}/mfpruner/vtn_64"
PLACED = {
    "gqa": "gqa/data/testdev_balanced_questions.json",
    "sqa": "scienceqa/llava_test_CQM-I.json",
    "mmvet": f"mm-vet/grades/{WHICH.format('llava-mm-vet', '*')}.json",
    "llavabench": f"llava-bench-in-the-wild/reviews/{WHICH.format('questions', '*')}.jsonl",
    "shapes": "shapes/shapes_test.jsonl",
}


def is_meant(script: str, line: str) -> bool:
    return "OTHER" not in line or script.partition("/")[2] in OTHER_SPLITS


def commands(script: str, folder: Path, lines: list[str]) -> str:
    """A bash program that runs a script with every line, each in a folder of its own."""
    task = script.partition("/")[2]
    words = ["set -u", f"source '{STUB}'"]
    for line in lines:
        place = folder / str(list(LINES).index(line))
        (place / EVAL).mkdir(parents=True)
        (place / "scripts").symlink_to(REPOSITORY / "scripts")
        environment = dict(LINES[line])
        arguments = line.replace("OTHER", OTHER_SPLITS.get(task, ""))
        if launcher := environment.pop("LAUNCHER", ""):
            arguments += f" '{launcher}'"
        if environment.pop("PLACED", "") and task in PLACED:
            checkpoints = ("llava-v1.5-7b", "llava-v1.6-vicuna-7b")
            for path in (place / EVAL / PLACED[task].replace("*", name) for name in checkpoints):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        settings = " ".join(f"{name}='{value}'" for name, value in environment.items())
        path = "scripts/{}/eval/{}.sh".format(*script.split("/"))
        run = f"env NOTES=notes {settings} bash {path} {arguments} > out 2> err; echo $? > code"
        words.append(f"cd '{place}' && {{ {run}; }}")
    return "\n".join(words)


def plan(place: Path) -> dict[str, str]:
    """What a script did in a folder: the values of every option of every call, by ``NUMBER OPTION``.

    Of several processes that ask, the calls behind the first, ``1.1``, hold what differs from it.
    """
    said = (place / "out").read_text().splitlines()
    if code := (place / "code").read_text().strip("0\n"):
        return {"code": code, "error": (place / "err").read_text().split("\n")[0], "said": "\n".join(said)}
    calls = [options_of(call.splitlines()) for call in (place / "notes").read_text().split("# ")[1:]]
    asking = sorted((call for call in calls if "--chunk-idx" in call), key=lambda call: call["--chunk-idx"])
    place_of_asking = min(map(calls.index, asking))
    calls = [call for call in calls if "--chunk-idx" not in call]
    calls.insert(place_of_asking, asking[0])
    found = {f"{number} {option}": value for number, call in enumerate(calls) for option, value in call.items()}
    for chunk, call in enumerate(asking[1:], 1):
        found |= {f"1.{chunk} {option}": value for option, value in difference(call, asking[0]).items()}
    return named(found | {"said": "\n".join(said)}, place)


def options_of(words: list[str]) -> dict[str, str]:
    """The words of a call by their options, with the devices that a process sees; a bar between repeated ones."""
    devices, *words = words
    found = {"devices": devices} if devices and "--chunk-idx" in words else {}
    option = ""
    for word in words:
        if word.startswith("-"):
            option = word
            found[option] = f"{found[option]} |" if option in found else ""
        else:
            found[option] = f"{found.get(option, '')} {shlex.quote(word)}".strip()
    return found


def named(found: dict[str, str], place: Path) -> dict[str, str]:
    """The plan with the names of split, checkpoint and setting beside it instead of within each path."""
    which = re.search("/answers/([^ ]*)/([^ /]*)/([^ /]*/[^ /]*)[.]jsonl", found["said"])
    marks = {str(place): ".", str(REPOSITORY): "."}
    marks |= {f"{which[1]}/{which[2]}/{which[3]}": "{which}", which[1]: "{split}", which[2]: "{checkpoint}"}
    for text, mark in marks.items():
        found = {option: value.replace(text, mark) for option, value in found.items()}
    return found | {"split": which[1], "checkpoint": which[2], "setting": which[3]}


def difference(found: dict[str, str], usual: dict[str, str]) -> dict[str, str | None]:
    """What is another one than usual, None where it is not there; all of a call that is refused."""
    if "error" in found:
        return found
    return {option: found.get(option) for option in {**usual, **found} if found.get(option) != usual.get(option)}


class Plans(Recording):
    """A line for each line of arguments: the scripts that do the same with it, and what they do."""

    def __init__(self, path: Path, records: bool):
        super().__init__(path, records)
        lines, self.known = self.known, {}
        for line, plans in lines.items():
            self.known |= {f"{script} {line}".strip(): plan for scripts, plan in plans for script in scripts.split()}

    def write(self) -> None:
        plans, self.known, self.found = {**self.known, **self.found}, {}, {}
        for case, found in plans.items():
            script, _, line = case.partition(" ")
            groups = self.found.setdefault(line, [])
            same = next((group for group in groups if group[1] == found), None)
            groups.extend([] if same else [[script, found]])
            if same:
                same[0] += f" {script}"
        super().write()


@pytest.fixture(scope="module")
def recording(records):
    recording = Plans(RECORDED, records)
    yield recording
    if records:
        recording.write()


def hold(recording, folder: Path, script: str, lines: list[str]) -> None:
    """Run a script with some lines, the usual one first, and hold what it does against what is recorded."""
    lines = [line for line in lines if is_meant(script, line)]
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    subprocess.run(["bash", "-c", commands(script, folder, lines)], env=kept, check=True, timeout=120)
    plans = {line: plan(folder / str(list(LINES).index(line))) for line in lines}
    usual = plans[USUAL]
    for line, found in plans.items():
        environment = "".join(f"{name}={value} " for name, value in LINES[line].items())
        case = f"{script} {environment}{line}".strip()
        recording.check(case, found if line == USUAL else difference(found, usual))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_what_is_recorded(script, tmp_path, recording, records):
    if not records:
        hold(recording, tmp_path, script, list(LINES) if script in WHOLE else ALWAYS)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_what_is_recorded_with_all_lines(script, tmp_path, recording):
    hold(recording, tmp_path, script, list(LINES))


def test_nothing_else_is_recorded(recording, records):
    if not records:
        count = sum(is_meant(script, line) for script in SCRIPTS for line in LINES)
        assert len(recording.known) == count
