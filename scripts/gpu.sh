#!/usr/bin/env bash
# Everything that needs a GPU, in at most 8 minutes: bash scripts/gpu.sh [--out DIR] [OPTIONS]. PYTHON names a Python
# with torch and Transformers; nothing is installed or downloaded. --help lists the options.
root="$(cd "$(dirname "$0")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m llava.bench.gpu "$@"
