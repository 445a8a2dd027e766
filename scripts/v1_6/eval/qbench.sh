#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" qbench v1_6 "$@"
