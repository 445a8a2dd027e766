"""Stands in for `python` in the dry runs of the scripts: notes each call and writes the files it would have written.

Called as `stub_python.py NOTES TROUBLE ARG...`; NOTES gets one JSON line per `python -m MODULE`. TROUBLE is `none`,
`hang`, or the rank that fails.
"""

import json
import os
import sys
import time
from pathlib import Path


def value_of(option: str, words: list[str]) -> str:
    return words[words.index(option) + 1]


def main(notes: str, trouble: str, *words: str) -> int:
    if words[0] != "-m":
        return 0
    module, *options = words[1:]
    note = {"module": module, "options": options, "device": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
    with open(notes, "a") as file:
        file.write(json.dumps(note) + "\n")
    if "--chunk-idx" in options:
        rank = value_of("--chunk-idx", options)
        print(f"progress of rank {rank}")
        if trouble == "hang":
            time.sleep(30)
        if trouble == rank:
            return 3
        Path(value_of("--answers-file", options)).write_text(f"answers of rank {rank}\n")
    if module == "llava.shapes.benchmark":
        folder = Path(value_of("--output-dir", options))
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("shapes_test.jsonl", "shapes_test_labels.jsonl"):
            (folder / name).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
