#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" seed v1_6 "$@"
