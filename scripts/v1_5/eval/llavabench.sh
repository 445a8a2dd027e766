#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/llavabench.sh" v1_5 "$@"
