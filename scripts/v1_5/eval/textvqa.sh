#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" textvqa v1_5 "$@"
