#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" shapes v1_5 "$@"
