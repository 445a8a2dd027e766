"""Stands in for `python` in the dry runs of the scripts: notes each call and writes the files it would have written.

Called as `stub_python.py NOTES TROUBLE ARG...`; NOTES gets one JSON line per `python -m MODULE` or `python SCRIPT.py`,
with the script's name for a module. TROUBLE is `none`, `hang`, `killed` or the rank that fails.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

RUN = "import sys; from llava.eval.ask.run import run; run(sys.argv[1:], lambda words: None, python='python')"
"""The real program, whose processes are this one again."""


def value_of(option: str, words: list[str]) -> str:
    return words[words.index(option) + 1]


def main(notes: str, trouble: str, *words: str) -> int:
    if words[0] == "-c":
        return 0
    module, *options = words[1:] if words[0] == "-m" else words
    script = None if words[0] == "-m" else module
    if module == "llava.eval":
        if options[0] == "run" and trouble == "hang":
            os.execv(sys.executable, [sys.executable, "-c", RUN, *options[1:]])
        named = 2 if options[0] in ("score", "submit") else 1
        module, options = " ".join([module, *options[:named]]), options[named:]
    note = {
        "module": module if script is None else Path(script).stem,
        "script": script and str(Path(script).resolve(strict=True)),
        "options": options,
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "pid": os.getpid(),
    }
    with open(notes, "a") as file:
        file.write(json.dumps(note) + "\n")
    if "--chunk-idx" in options:
        rank = value_of("--chunk-idx", options)
        print(f"progress of rank {rank}")
        if trouble == "hang":
            time.sleep(30)
        if trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == rank:
            return 3
        answers = Path(value_of("--answers-file", options))
        answers.parent.mkdir(parents=True, exist_ok=True)
        answers.write_text(f"answers of rank {rank}\n")
        chunk = {"num_chunks": int(value_of("--num-chunks", options)), "chunk_idx": int(rank)}
        answers.with_name(f"{answers.name}.run").write_text(json.dumps({"settings": chunk}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
