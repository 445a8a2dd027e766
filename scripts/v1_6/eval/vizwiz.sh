#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/vizwiz.sh" v1_6 "$@"
