#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/mmvet.sh" v1_5 "$@"
