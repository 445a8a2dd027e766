#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/pope.sh" v1_6 "$@"
