#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" pope v1_5 "$@"
