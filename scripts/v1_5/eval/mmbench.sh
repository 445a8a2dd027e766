#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/mmbench.sh" v1_5 "$@"
