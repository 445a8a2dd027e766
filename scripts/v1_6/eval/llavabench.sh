#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" llavabench v1_6 "$@"
