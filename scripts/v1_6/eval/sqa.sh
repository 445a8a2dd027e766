#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" sqa v1_6 "$@"
