#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/run.sh" mme v1_6 "$@"
