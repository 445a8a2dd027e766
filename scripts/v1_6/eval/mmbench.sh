#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" mmbench v1_6 "$@"
