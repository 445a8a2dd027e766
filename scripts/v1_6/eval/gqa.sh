#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/gqa.sh" v1_6 "$@"
