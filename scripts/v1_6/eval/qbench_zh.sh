#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" qbench_zh v1_6 "$@"
