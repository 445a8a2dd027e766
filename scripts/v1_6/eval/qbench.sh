#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/qbench.sh" v1_6 "$@"
