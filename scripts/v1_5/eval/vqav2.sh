#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/vqav2.sh" v1_5 "$@"
