#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" mmvet v1_5 "$@"
