#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/seed.sh" v1_5 "$@"
