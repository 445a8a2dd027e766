"""The words of the benchmarks' scripts come to the commands and paths that are recorded."""

import json
import shlex
from pathlib import Path

import pytest

from llava.eval.ask.plan import Plan, plan_of

from .recording import GOLDEN, Recording

RECORDED = GOLDEN / "plans.json"
REPOSITORY = Path(__file__).parents[2]
PLANS = json.loads(RECORDED.read_text(encoding="utf-8"))
SCRIPTS = sorted({script for plans in PLANS.values() for scripts, _ in plans for script in scripts.split()})
"""Those that are recorded; a benchmark that comes later is held by the tests of scripts alone."""
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


def plan(script: str, line: str, place: Path, capsys: pytest.CaptureFixture) -> dict[str, str]:
    """What a script does in a folder: the values of every option of every call, by ``NUMBER OPTION``.

    Of several processes that ask, the calls behind the first, ``1.1``, hold what differs from it.
    """
    version, task = script.split("/")
    environment = dict(LINES[line])
    arguments = shlex.split(line.replace("OTHER", OTHER_SPLITS.get(task, "")))
    if launcher := environment.pop("LAUNCHER", ""):
        arguments.append(launcher)
    if environment.pop("PLACED", "") and task in PLACED:
        for name in ("llava-v1.5-7b", "llava-v1.6-vicuna-7b"):
            path = place / EVAL / PLACED[task].replace("*", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    capsys.readouterr()
    try:
        found = plan_of([task, version, *arguments], environment)
    except SystemExit as end:
        assert f"usage: bash scripts/{script.replace('/', '/eval/')}.sh TOKENS" in capsys.readouterr().err
        return {"code": str(end.code)}
    calls = [["-m", "llava.eval", *found.doctor], *found.asking]
    devices = "CUDA_VISIBLE_DEVICES" in environment
    seen = found.places.devices if len(found.asking) > 1 else [",".join(found.places.devices)]
    asking = [
        options_of(call) | ({"devices": device} if devices else {})
        for call, device in zip(calls[1:], seen, strict=True)
    ]
    named_words = {f"0 {option}": value for option, value in options_of(calls[0]).items()}
    named_words |= {f"1 {option}": value for option, value in asking[0].items()}
    for chunk, call in enumerate(asking[1:], 1):
        named_words |= {f"1.{chunk} {option}": value for option, value in difference(call, asking[0]).items()}
    if words := found.scoring:
        scoring = options_of(["-m", "llava.eval", *words])
        named_words |= {f"2 {option}": value for option, value in scoring.items()}
    if words[:1] != ["score"]:
        named_words["submit"] = found.submission
    return named(named_words, found)


def options_of(words: list[str]) -> dict[str, str]:
    """The words of a call by their options; a bar between repeated ones."""
    found, option = {}, ""
    for word in words:
        if word.startswith("-"):
            option = word
            found[option] = f"{found[option]} |" if option in found else ""
        else:
            found[option] = f"{found.get(option, '')} {shlex.quote(word)}".strip()
    return found


def named(words: dict[str, str], found: Plan) -> dict[str, str]:
    """The plan with the names of split, checkpoint and setting beside it instead of within each path."""
    marks = {found.which: "{which}", found.split: "{split}", found.places.checkpoint: "{checkpoint}"}
    for text, mark in {str(REPOSITORY): ".", **marks}.items():
        words = {option: value.replace(text, mark) for option, value in words.items()}
    setting = found.which.removeprefix(f"{found.split}/{found.places.checkpoint}/")
    return words | {"split": found.split, "checkpoint": found.places.checkpoint, "setting": setting}


def difference(found: dict[str, str], usual: dict[str, str]) -> dict[str, str | None]:
    """What is another one than usual, None where it is not there; all of a call that is refused."""
    if "code" in found:
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_comes_to_the_commands_and_paths_that_are_recorded(script, tmp_path, recording, monkeypatch, capsys):
    plans = {}
    for number, line in enumerate(line for line in LINES if is_meant(script, line)):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        plans[line] = plan(script, line, place, capsys)
    for line, found in plans.items():
        environment = "".join(f"{name}={value} " for name, value in LINES[line].items())
        case = f"{script} {environment}{line}".strip()
        recording.check(case, found if line == USUAL else difference(found, plans[USUAL]))


def test_each_recorded_script_is_there():
    assert len(SCRIPTS) == 29
    assert all(
        (REPOSITORY / "scripts" / script.replace("/", "/eval/")).with_suffix(".sh").is_file() for script in SCRIPTS
    )


def test_nothing_else_is_recorded(recording, records):
    if not records:
        count = sum(is_meant(script, line) for script in SCRIPTS for line in LINES)
        assert len(recording.known) == count
