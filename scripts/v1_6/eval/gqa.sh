#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" gqa v1_6 "$@"
