"""Check types: ``python .ci/check_types.py``. Some parts have no error, all else has no more than are recorded.

What is recorded stands in .ci/type_errors.txt, and only falls: ``--lower`` writes what was found where it is fewer.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / ".ci" / "type_errors.txt"
STRICT = ("llava/asking", "llava/pruners", "llava/selecting", "llava/vllm")
"""The parts without errors."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lower", action="store_true", help="record what was found, if it is fewer")
    options = parser.parse_args()
    found, allowed = errors(), recorded()
    code, said = judge(found, allowed)
    print(*said, sep="\n")
    if options.lower and elsewhere(found) < allowed:
        RECORD.write_text(f"{elsewhere(found)}\n", encoding="utf-8")
    return code


def errors() -> list[tuple[str, str]]:
    """Every error: the file, from the root of the repository, and a line that says where it is and what is wrong."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    found = []
    for each in json.loads(answer)["generalDiagnostics"]:
        if each["severity"] == "error":
            file = Path(each["file"]).relative_to(ROOT).as_posix()
            line, what = each["range"]["start"]["line"] + 1, " ".join(each["message"].split())
            found.append((file, f"{file}:{line}: {what} ({each.get('rule', 'syntax')})"))
    return found


def recorded() -> int:
    return int(RECORD.read_text(encoding="utf-8"))


def is_strict(file: str) -> bool:
    return file.startswith(tuple(f"{part}/" for part in STRICT))


def elsewhere(found: list[tuple[str, str]]) -> int:
    """How many errors are in none of the strict parts."""
    return sum(not is_strict(file) for file, _ in found)


def judge(found: list[tuple[str, str]], allowed: int) -> tuple[int, list[str]]:
    """The exit code, and what is said of the errors."""
    strict, others = [line for file, line in found if is_strict(file)], elsewhere(found)
    said = [*strict, f"types: {len(strict)} errors in {', '.join(STRICT)}; {others} elsewhere, {allowed} are recorded"]
    if others > allowed:
        parts = Counter("/".join(file.split("/")[:2]) for file, _ in found if not is_strict(file))
        said += [line for file, line in found if not is_strict(file)]
        said.append(f"more errors than are recorded: {', '.join(f'{part} {count}' for part, count in parts.items())}")
    elif others < allowed:
        said.append(f"fewer errors than are recorded: python .ci/check_types.py --lower writes {others}")
    return int(bool(strict) or others > allowed), said


if __name__ == "__main__":
    sys.exit(main())
