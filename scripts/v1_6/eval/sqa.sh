#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/sqa.sh" v1_6 "$@"
