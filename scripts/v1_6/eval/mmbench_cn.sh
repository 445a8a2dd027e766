#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" mmbench_cn v1_6 "$@"
