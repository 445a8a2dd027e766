#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/qbench_zh.sh" v1_5 "$@"
