#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/shapes.sh" v1_5 "$@"
