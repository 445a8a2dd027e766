#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/mme.sh" v1_6 "$@"
