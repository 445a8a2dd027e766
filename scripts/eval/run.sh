#!/usr/bin/env bash
# One evaluation: run.sh TASK VERSION TOKENS [IMPORTANT_RATIO] [OPTION...]; --help says more. Where the caller has no
# Python with Transformers active, the one that make has set up serves.
python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("transformers") is None)' 2> /dev/null ||
    PATH=$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin:$PATH
exec python -m llava.eval run "$@"
